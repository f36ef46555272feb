//! Documents into a snapshot.

mod routing;

use crate::{
    counting::{self, CountingInput, Lies},
    documents::{
        Affinity, Algorithm, ChannelSource, CountedPattern, CredentialKind, Documents, Endpoint, Enforcement,
        Entry, Kind, Limit, Location, Model, Price, Provider, Relief, Span, TlsVersion,
    },
    effective::{EffectiveChannel, EffectiveLimit},
    glob::is_glob,
    identity::{Owner, hash_name, limit_key, limit_shape, relieved_shape},
    problem::Problem,
    rules,
    snapshot::{
        AddressRecord, AffinityView, ChannelRecord, Code, CountingRecord, CredentialRecord, DeploymentRecord,
        KeyRecord, LimitRecord, ModelMatch, ModelNameRecord, ModelRecord, PatternRecord, PermissionRecord,
        PriceRecord, ProviderRecord, ProxyRecord, Range, Scope, SettingsRecord, SourceRecord, SourceView,
        Str, flag, images_code,
        writer::{TooLarge, Writer, small},
    },
    text::SecretRef,
    validate::{self, Checked, counting::shortest_match},
};
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};
use zerocopy::{IntoBytes, little_endian::U32};

/// Turns the credential of a provider (by its id) into ciphertext.
pub type Seal = dyn Fn(&str, SecretRef<'_>) -> Result<Vec<u8>, String>;

/// What compilation needs from outside.
pub struct CompileInput<'a> {
    /// Number of the new configuration.
    pub generation: u64,
    /// Now, in Unix milliseconds.
    pub created_unix_ms: u64,
    /// Addresses of a provider, by its id.
    pub resolved: &'a dyn Fn(&str) -> Vec<SocketAddr>,
    /// The content of a provider's `ca_file`, by its path, checked to hold certificates.
    pub authorities: &'a dyn Fn(&str) -> Result<Vec<u8>, String>,
    /// What counting needs.
    pub counting: CountingInput<'a>,
    /// Turns a provider's credential (by provider id) into the ciphertext that goes into the snapshot. An error's text becomes
    /// part of a problem, so it must not hold the credential.
    pub seal: &'a Seal,
}

/// Compiles documents to a snapshot.
///
/// # Errors
/// Every problem of [`crate::validate()`] if one of them is an error, or if a document could not be decoded; a credential
/// that could not be sealed; two limits whose identities hash to one key.
pub fn compile(documents: &Documents, input: &CompileInput<'_>) -> Result<Vec<u8>, Vec<Problem>> {
    let (validated, problems) = Validated::new(documents);
    validated.ok_or(problems)?.compile(input)
}

/// Documents without an error: what is needed to compile them, as far as validation has worked it out already.
pub struct Validated<'d> {
    documents: &'d Documents,
    checked: Checked<'d>,
}

impl<'d> Validated<'d> {
    /// Validates. All problems are returned, those of [`crate::validate()`] and one for each kind of which something could
    /// not be decoded; `None` with them if one is an error.
    pub fn new(documents: &'d Documents) -> (Option<Self>, Vec<Problem>) {
        let (checked, mut problems) = validate::check(documents);
        for kind in documents.incomplete() {
            let file = format!("tollgate.{}.json", kind.name());
            problems.push(Problem::error(
                file,
                "",
                "could not be decoded; see the problems of its entries",
            ));
        }
        let sound = !problems.iter().any(Problem::is_error);
        (sound.then_some(Self { documents, checked }), problems)
    }

    /// Compiles.
    ///
    /// # Errors
    /// A credential that could not be sealed; two limits whose identities hash to one key.
    pub fn compile(&self, input: &CompileInput<'_>) -> Result<Vec<u8>, Vec<Problem>> {
        let mut compiler = Compiler {
            documents: self.documents,
            input,
            writer: Writer::default(),
            inherited: HashMap::new(),
            routes: HashMap::new(),
            numbers: routing::Numbers::default(),
            problems: Vec::new(),
        };
        let laid_out = compiler.all(&self.checked);
        let Compiler { writer, problems, .. } = compiler;
        if !problems.is_empty() {
            return Err(problems);
        }
        laid_out
            .and_then(|()| writer.finish(input.generation, input.created_unix_ms))
            .map_err(|TooLarge| {
                vec![Problem::error(
                    "",
                    "",
                    "the configuration is too large: a part of it exceeds 4 GiB",
                )]
            })
    }
}

/// 24 bits of a hash of everything that decides a count; never 0. Places of texts say nothing, so those stand in for
/// themselves.
fn counting_version(record: &CountingRecord, tokenizer: &str, patterns: &[CountedPattern]) -> u32 {
    let nowhere = Str {
        offset: 0.into(),
        len: 0.into(),
    };
    let plain = CountingRecord {
        rule: nowhere,
        tokenizer: nowhere,
        wanted: nowhere,
        file: nowhere,
        patterns: Range {
            start: 0.into(),
            len: 0.into(),
        },
        suspicious_factor: 0.into(),
        ..*record
    };
    let mut bytes = plain.as_bytes().to_vec();
    bytes.extend_from_slice(tokenizer.as_bytes());
    for counted in patterns {
        bytes.push(0);
        bytes.extend_from_slice(counted.pattern.as_bytes());
        bytes.extend_from_slice(&counting::thousandths(counted.tokens).to_le_bytes());
    }
    let hash = hash_name(&bytes) & 0xff_ffff;
    u32::try_from(hash).unwrap_or(1).max(1)
}

struct Compiler<'d> {
    documents: &'d Documents,
    input: &'d CompileInput<'d>,
    writer: Writer,
    /// Records of templates' limits, by their address in the documents.
    inherited: HashMap<(usize, Enforcement), U32>,
    /// Records of routes, by their address in the documents.
    routes: HashMap<usize, U32>,
    numbers: routing::Numbers<'d>,
    problems: Vec<Problem>,
}

fn bounded_ms(span: Span) -> U32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX).into()
}

fn byte(number: u32) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}

fn bit(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}

impl<'d> Compiler<'d> {
    fn all(&mut self, checked: &Checked<'d>) -> Result<(), TooLarge> {
        let mut providers = HashMap::new();
        for entry in &self.documents.providers {
            providers.insert(entry.value.id.as_str(), small(self.writer.providers.len())?);
            self.provider(entry)?;
        }
        for entry in &self.documents.models {
            self.model(&entry.value, &providers)?;
        }
        self.experiments()?;
        for channel in &checked.channels {
            self.channel(channel)?;
        }
        self.settings()?;
        self.writer.rules = rules::encode(&checked.rules);
        self.collisions(checked);
        Ok(())
    }

    fn provider(&mut self, entry: &Entry<Provider>) -> Result<(), TooLarge> {
        let provider = &entry.value;
        let Ok(endpoint) = Endpoint::parse(&provider.base_url) else {
            // Validated before.
            return Ok(());
        };
        let credentials = &provider.credentials;
        let first = self.writer.credentials.len();
        for (index, (id, weight, secret)) in credentials.sources().enumerate() {
            let sealed = (self.input.seal)(&provider.id, secret).unwrap_or_else(|reason| {
                let field = if id.is_empty() {
                    "credentials".to_owned()
                } else {
                    format!("credentials.keys[{index}]")
                };
                let problem = entry.at.error(&field, format!("cannot be sealed: {reason}"));
                self.problems.push(problem);
                Vec::new()
            });
            let record = CredentialRecord {
                id: self.writer.text(id)?,
                sealed: self.writer.blob(&sealed)?,
                weight: weight.into(),
            };
            self.writer.credentials.push(record);
        }
        let sent = self.writer.credentials.len() - first;
        let authorities = match &provider.tls.ca_file {
            None => Vec::new(),
            Some(path) => (self.input.authorities)(path).unwrap_or_else(|reason| {
                self.problems.push(entry.at.error("tls.ca_file", reason));
                Vec::new()
            }),
        };
        let addresses = (self.input.resolved)(&provider.id);
        for address in &addresses {
            let (ip, v4) = match address.ip() {
                IpAddr::V4(v4) => (v4.to_ipv6_mapped(), 1),
                IpAddr::V6(v6) => (v6, 0),
            };
            let port = address.port().into();
            self.writer.addresses.push(AddressRecord {
                ip: ip.octets(),
                port,
                v4,
                reserved: 0,
            });
        }
        let header = match credentials.kind {
            CredentialKind::None => String::new(),
            CredentialKind::Bearer => "authorization".to_owned(),
            CredentialKind::XApiKey => "x-api-key".to_owned(),
            CredentialKind::Header => credentials
                .name
                .as_deref()
                .unwrap_or_default()
                .to_ascii_lowercase(),
        };
        let tls_name = provider.tls.server_name.as_deref().unwrap_or(&endpoint.host);
        let host = provider
            .host_header
            .clone()
            .unwrap_or_else(|| endpoint.host_header());
        let record = ProviderRecord {
            id: self.writer.text(&provider.id)?,
            host: self.writer.text(&host)?,
            tls_name: self.writer.text(tls_name)?,
            ca_file: self
                .writer
                .text(provider.tls.ca_file.as_deref().unwrap_or_default())?,
            authorities: self.writer.blob(&authorities)?,
            path_prefix: self.writer.text(&endpoint.path_prefix)?,
            credential_header: self.writer.text(&header)?,
            credentials: Writer::tail(self.writer.credentials.len(), sent)?,
            addresses: Writer::tail(self.writer.addresses.len(), addresses.len())?,
            max_idle: provider.connections.max_idle.into(),
            idle_ms: bounded_ms(provider.connections.idle_timeout),
            max_requests: provider.connections.max_requests.into(),
            protocol: provider.protocol.code(),
            credential_kind: credentials.kind.code(),
            flags: bit(provider.enabled, flag::ENABLED)
                | bit(endpoint.tls, flag::TLS)
                | bit(provider.tls.verify, flag::TLS_VERIFY)
                | bit(provider.tls.min_version == TlsVersion::V1_3, flag::TLS_1_3),
            reserved: 0,
        };
        self.writer.providers.push(record);
        Ok(())
    }

    fn model(&mut self, model: &Model, providers: &HashMap<&str, u32>) -> Result<(), TooLarge> {
        let index = small(self.writer.models.len())?;
        for deployment in &model.deployments {
            let Some(provider) = providers.get(deployment.provider.as_str()).copied() else {
                continue;
            };
            let provider_enabled = usize::try_from(provider)
                .ok()
                .and_then(|at| self.documents.providers.get(at))
                .is_some_and(|entry| entry.value.enabled);
            let id = deployment.id(&model.name);
            let limits = self.limits(&deployment.limits, &[], Owner::Deployment(&id))?;
            let record = DeploymentRecord {
                id: self.writer.text(&id)?,
                limits,
                upstream_model: self
                    .writer
                    .text(deployment.upstream_model.as_deref().unwrap_or(&model.name))?,
                version: self.writer.text(&deployment.version)?,
                model: index.into(),
                provider: provider.into(),
                weight: deployment.weight.into(),
                flags: bit(deployment.enabled && provider_enabled, flag::ENABLED),
                reserved: [0; 3],
            };
            self.writer.deployments.push(record);
            let cost = self.price(deployment.cost.as_ref())?;
            self.writer.costs.push(cost);
        }
        let deployments = Writer::tail(self.writer.deployments.len(), model.deployments.len())?;
        let name = self.writer.text(&model.name)?;
        self.writer.model_names.push(ModelNameRecord {
            name,
            model: index.into(),
        });
        for alias in &model.aliases {
            let name = self.writer.text(alias)?;
            self.writer.model_names.push(ModelNameRecord {
                name,
                model: index.into(),
            });
        }
        let limits = self.limits(&model.limits, &model.relief, Owner::Model(&model.name))?;
        self.counting(model)?;
        let price = self.price(model.price.as_ref())?;
        self.writer.prices.push(price);
        let routing = &model.routing;
        // Validated before.
        let affinity = routing
            .affinity
            .as_deref()
            .and_then(|text| Affinity::parse(text).ok());
        let (affinity, affinity_name) = AffinityView::code(affinity.as_ref());
        let record = ModelRecord {
            hash: hash_name(model.name.as_bytes()).into(),
            name,
            aliases: self.writer.texts(model.aliases.iter().map(String::as_str))?,
            fallback: self.writer.texts(model.fallback.iter().map(String::as_str))?,
            deployments,
            limits,
            max_output_tokens: model.max_output_tokens.into(),
            default_max_tokens: model.default_max_tokens.into(),
            max_body_bytes: model.max_body_bytes.into(),
            connect_ms: model.timeouts.connect.as_millis().into(),
            first_token_ms: model.timeouts.first_token.as_millis().into(),
            idle_ms: model.timeouts.idle.as_millis().into(),
            total_ms: model.timeouts.total.as_millis().into(),
            affinity_name: self.writer.text(affinity_name)?,
            latest: self.writer.text(routing.latest.as_deref().unwrap_or_default())?,
            slow_start_ms: bounded_ms(routing.slow_start),
            breaker_failures: routing.breaker.failures.into(),
            breaker_open_ms: bounded_ms(routing.breaker.open),
            breaker_max_open_ms: bounded_ms(routing.breaker.max_open),
            session_s: u32::try_from(routing.session.lifetime.as_millis() / 1_000)
                .unwrap_or(u32::MAX)
                .into(),
            // Written once all models have their numbers.
            experiment: 0.into(),
            balance: routing.balance.code(),
            affinity,
            panic_percent: byte(routing.panic_percent),
            attempts: byte(routing.retry.attempts),
            retry_percent: byte(routing.retry.budget_percent),
            session_flags: bit(routing.session.secure, flag::SECURE),
            same_site: routing.session.same_site.code(),
            reserved: 0,
        };
        self.writer.models.push(record);
        Ok(())
    }

    fn price(&mut self, price: Option<&Price>) -> Result<PriceRecord, TooLarge> {
        Ok(PriceRecord {
            per_million: price.map_or([0; 4], Price::per_million).map(Into::into),
            version: price.map_or(0, Price::version).into(),
            currency: self.writer.text(price.map_or("", |price| &price.currency))?,
        })
    }

    /// How the model that comes next is counted.
    fn counting(&mut self, model: &Model) -> Result<(), TooLarge> {
        let wanted = counting::wanted(self.documents, model);
        let input = &self.input.counting;
        let (file, source, growth, tokenizer) = match counting::find(wanted.tokenizer, input) {
            _ if wanted.ratios.is_some() => (String::new(), 0, 0, ""),
            Lies::BuiltIn => (String::new(), 0, 1, wanted.tokenizer),
            Lies::File(found) => (found.file, found.source, found.growth, wanted.tokenizer),
            Lies::Nowhere => (String::new(), 0, 1, counting::stand_in()),
        };
        let missing = wanted.ratios.is_none() && tokenizer != wanted.tokenizer;
        let learns = wanted.learn || missing && wanted.factor == 1_000;
        let factor = (input.learned)(&model.name)
            .filter(|_| learns)
            .unwrap_or(wanted.factor);
        let mut most_per_byte = growth.saturating_mul(1_000);
        if let Some([letter, cjk, digit, space, punctuation, other]) = wanted.ratios {
            // A byte at least for each character; three for those of CJK, two for what is not ASCII and no control.
            most_per_byte = letter
                .max(cjk.div_ceil(3))
                .max(digit)
                .max(space)
                .max(punctuation)
                .max(other);
        }
        for counted in wanted.patterns {
            let units = counting::thousandths(counted.tokens);
            let bytes = u32::try_from(shortest_match(&counted.pattern)).unwrap_or(u32::MAX);
            most_per_byte = most_per_byte.max(units.div_ceil(bytes.max(1)));
            let pattern = self.writer.text(&counted.pattern)?;
            self.writer.patterns.push(PatternRecord {
                pattern,
                units: units.into(),
            });
        }
        let settings = self.documents.settings.as_ref().map(|entry| &entry.value);
        let suspicious = model
            .suspicious_usage_factor
            .or_else(|| settings.map(|settings| settings.suspicious_usage_factor));
        let (images_kind, images) = images_code(wanted.images);
        let mut record = CountingRecord {
            rule: self.writer.text(wanted.rule)?,
            tokenizer: self.writer.text(tokenizer)?,
            wanted: self.writer.text(wanted.tokenizer)?,
            file: self.writer.text(&file)?,
            source: source.into(),
            minimum: wanted.minimum.into(),
            maximum: wanted.maximum.into(),
            patterns: Writer::tail(self.writer.patterns.len(), wanted.patterns.len())?,
            version: 0.into(),
            factor: factor.into(),
            most_per_byte: most_per_byte.into(),
            suspicious_factor: counting::thousandths(suspicious.unwrap_or(2.0)).into(),
            audio_second: wanted.audio_second.into(),
            ratios: wanted.ratios.unwrap_or_default().map(Into::into),
            parts: wanted.parts.map(Into::into),
            images: images.map(Into::into),
            images_kind,
            flags: bit(!wanted.exact || missing, flag::ESTIMATE)
                | bit(learns, flag::LEARNS)
                | bit(wanted.ratios.is_some(), flag::RATIOS),
            reserved: [0; 2],
        };
        record.version = counting_version(&record, tokenizer, wanted.patterns).into();
        self.writer.countings.push(record);
        Ok(())
    }

    fn channel(&mut self, effective: &EffectiveChannel<'d>) -> Result<(), TooLarge> {
        let channel = effective.channel;
        let index = small(self.writer.channels.len())?;
        for key in &channel.keys {
            let id = self.writer.text(&key.id)?;
            self.writer.keys.push(KeyRecord {
                sha256: key.sha256.0,
                expires_unix: key.expires_at.map_or(0, |instant| instant.0.max(1)).into(),
                channel: index.into(),
                id,
                flags: bit(key.enabled, flag::ENABLED),
                reserved: [0; 3],
            });
        }
        let mut ids = Vec::with_capacity(effective.limits.len());
        for own in &effective.limits {
            ids.push(self.channel_limit(own, &channel.relief)?);
        }
        let allow = match effective.allow {
            Some(patterns) => self.writer.texts(patterns.iter().map(String::as_str))?,
            None => self.writer.texts(["*"])?,
        };
        let deny = self.writer.texts(effective.deny.iter().copied())?;
        let record = ChannelRecord {
            hash: hash_name(channel.code.as_bytes()).into(),
            code: self.writer.text(&channel.code)?,
            name: self.writer.text(&channel.name)?,
            keys: Writer::tail(self.writer.keys.len(), channel.keys.len())?,
            limits: self.writer.limit_list(&ids)?,
            tags: self.writer.texts(effective.tags.iter().copied())?,
            routes: self.routes(&effective.routes)?,
            permission: self.writer.permission(PermissionRecord { allow, deny })?,
            flags: bit(channel.enabled, flag::ENABLED) | bit(channel.trusted, flag::TRUSTED),
            abort_policy: effective.abort_policy.code(),
            reserved: [0; 2],
            end_before_ms: channel.end_streams_before.map_or(0, |at| at.0).into(),
        };
        self.writer.channels.push(record);
        Ok(())
    }

    fn channel_limit(&mut self, effective: &EffectiveLimit<'_>, relief: &[Relief]) -> Result<U32, TooLarge> {
        let EffectiveLimit {
            limit,
            enforcement,
            shape,
            at,
            ..
        } = *effective;
        let relief = Relief::of(relief, limit);
        // A template's limit comes by as often as there are channels that extend it.
        if at.kind != Kind::Templates || relief.is_some() {
            return self.limit(limit, enforcement, shape, Owner::Channel, relief);
        }
        let written = (std::ptr::from_ref(limit).addr(), enforcement);
        if let Some(id) = self.inherited.get(&written) {
            return Ok(*id);
        }
        let id = self.limit(limit, enforcement, shape, Owner::Channel, None)?;
        self.inherited.insert(written, id);
        Ok(id)
    }

    fn limits(&mut self, limits: &[Limit], relief: &[Relief], owner: Owner<'_>) -> Result<Range, TooLarge> {
        let ids = limits
            .iter()
            .map(|limit| {
                let enforcement = limit.enforcement.unwrap_or_default();
                let relief = Relief::of(relief, limit);
                self.limit(limit, enforcement, limit_shape(limit, owner), owner, relief)
            })
            .collect::<Result<Vec<_>, _>>()?;
        self.writer.limit_list(&ids)
    }

    fn limit(
        &mut self,
        limit: &Limit,
        enforcement: Enforcement,
        shape: u64,
        owner: Owner<'_>,
        relief: Option<&Relief>,
    ) -> Result<U32, TooLarge> {
        let shape = relieved_shape(shape, relief);
        let added = relief.map_or(0, |relief| relief.added(self.input.created_unix_ms));
        let raised = |units: u64| units.saturating_add(added).min(Limit::MAX);
        let (scope, model) = match owner {
            Owner::Channel if limit.model.is_some() || limit.per_model => {
                (Scope::ChannelModel, limit.model.as_deref())
            }
            Owner::Channel => (Scope::Channel, None),
            Owner::Model(name) => (Scope::Model, Some(name)),
            Owner::Global => (Scope::Global, limit.model.as_deref()),
            Owner::Deployment(_) => (Scope::Deployment, None),
        };
        let model_match = match (owner, model) {
            (_, None) => ModelMatch::Any,
            (Owner::Model(_), Some(_)) => ModelMatch::Exact,
            (_, Some(pattern)) if is_glob(pattern) => ModelMatch::Glob,
            _ => ModelMatch::Exact,
        };
        let algorithm = limit.algorithm();
        let max_delay_ms = match algorithm {
            Algorithm::LeakyBucket => limit.max_delay.map_or(1_000, |delay| delay.as_millis()),
            _ => 0,
        };
        let name: Str = self.writer.text(&limit.display_name())?;
        let model = self.writer.text(model.unwrap_or_default())?;
        self.writer.limit(LimitRecord {
            shape: shape.into(),
            window_ms: limit.window_ms().into(),
            max: raised(limit.max).into(),
            burst: raised(limit.burst.unwrap_or(limit.max)).into(),
            max_delay_ms: max_delay_ms.into(),
            name,
            model,
            metric: limit.metric.code(),
            algorithm: algorithm.code(),
            enforcement: enforcement.code(),
            scope: scope.code(),
            model_match: model_match.code(),
            per_model: u8::from(limit.per_model),
            on_full: limit.on_full.code(),
            reserved: 0,
        })
    }

    fn settings(&mut self) -> Result<(), TooLarge> {
        let settings = self.documents.settings();
        for source in &settings.channel_source {
            let view = match source {
                ChannelSource::Header(name) => SourceView::Header(name),
                ChannelSource::Query(name) => SourceView::Query(name),
                ChannelSource::Cookie(name) => SourceView::Cookie(name),
                ChannelSource::Body(path) => SourceView::Body(path),
                ChannelSource::ApiKey(false) => continue,
                ChannelSource::ApiKey(true) => SourceView::ApiKey,
            };
            let (kind, name) = view.code();
            let name = match view {
                SourceView::Header(_) => self.writer.text(&name.to_ascii_lowercase())?,
                SourceView::Body(_) => self
                    .writer
                    .text(&rules::canonical_path(name).unwrap_or_default())?,
                _ => self.writer.text(name)?,
            };
            self.writer.sources.push(SourceRecord {
                kind: kind.into(),
                name,
            });
        }
        for proxy in &settings.trusted_proxies {
            let (network, bits) = proxy.to_parts();
            self.writer.proxies.push(ProxyRecord {
                network,
                bits,
                reserved: [0; 3],
            });
        }
        let (sources, proxies) = (self.writer.sources.len(), self.writer.proxies.len());
        let limits = self.limits(&settings.limits, &settings.relief, Owner::Global)?;
        let end_before = settings.end_streams_before.map_or(0, |at| at.0);
        let channels = self.documents.channels.iter();
        let newest_end = channels.filter_map(|entry| entry.value.end_streams_before).max();
        let maintenance = settings.maintenance.as_ref();
        let message = self.writer.text(maintenance.map_or("", |m| &m.message))?;
        let retry_after_s = maintenance.map_or(0, |m| (m.retry_after.as_millis() / 1_000).max(1));
        self.writer.settings = Some(SettingsRecord {
            min_output_reservation: settings.min_output_reservation.into(),
            counters: settings.region.counters.into(),
            inflight: settings.region.inflight.into(),
            ring: settings.region.ring.into(),
            usage: settings.region.usage.into(),
            workers: settings.region.workers.into(),
            cluster: settings
                .redis
                .as_ref()
                .map_or(0, |_| crate::snapshot::policy_code(settings.lease.policy))
                .into(),
            lease_wait_ms: u32::try_from(settings.lease.wait.as_millis())
                .unwrap_or(u32::MAX)
                .into(),
            sources: Writer::tail(sources, sources)?,
            proxies: Writer::tail(proxies, proxies)?,
            limits,
            end_before_ms: end_before.into(),
            newest_end_ms: newest_end.map_or(0, |at| at.0).max(end_before).into(),
            maintenance: message,
            retry_after_s: u32::try_from(retry_after_s).unwrap_or(u32::MAX).into(),
        });
        Ok(())
    }

    /// Two identities with one key would share a counter. With 64 bits that does not happen by chance, but it must not
    /// happen in silence either.
    fn collisions(&mut self, checked: &Checked<'d>) {
        let settings = self.documents.settings.as_ref();
        let mut keys: Vec<(u64, Place<'_>)> = Vec::new();
        for channel in &checked.channels {
            let owner = hash_name(channel.channel.code.as_bytes());
            keys.extend(channel.limits.iter().map(|limit| {
                let relief = Relief::of(&channel.channel.relief, limit.limit);
                (
                    limit_key(owner, relieved_shape(limit.shape, relief)),
                    Place {
                        at: channel.at,
                        who: &channel.channel.code,
                        limit: limit.limit,
                    },
                )
            }));
        }
        for entry in &self.documents.models {
            let owner = Owner::Model(&entry.value.name);
            keys.extend(entry.value.limits.iter().map(|limit| {
                let relief = Relief::of(&entry.value.relief, limit);
                (
                    limit_key(0, relieved_shape(limit_shape(limit, owner), relief)),
                    Place {
                        at: &entry.at,
                        who: &entry.value.name,
                        limit,
                    },
                )
            }));
        }
        if let Some(entry) = settings {
            keys.extend(entry.value.limits.iter().map(|limit| {
                let relief = Relief::of(&entry.value.relief, limit);
                let key = limit_key(0, relieved_shape(limit_shape(limit, Owner::Global), relief));
                (
                    key,
                    Place {
                        at: &entry.at,
                        who: Kind::Settings.name(),
                        limit,
                    },
                )
            }));
        }
        keys.sort_unstable_by_key(|(key, _)| *key);
        for pair in keys.windows(2) {
            if let [(a, one), (b, other)] = pair
                && a == b
            {
                let reason = format!(
                    "limit `{}` of `{}` and limit `{}` of `{}` hash to one key; change the window of one of them",
                    one.limit.display_name(),
                    one.who,
                    other.limit.display_name(),
                    other.who
                );
                self.problems.push(one.at.error("limits", reason));
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Place<'a> {
    at: &'a Location,
    who: &'a str,
    limit: &'a Limit,
}
