//! A provider's base URL, taken apart.

/// Where a provider listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `https`.
    pub tls: bool,
    /// Host name or address, without brackets.
    pub host: String,
    /// Port; 80 or 443 by default.
    pub port: u16,
    /// What is put before the path that the client called: `""` or `/prefix`, without a slash at its end.
    pub path_prefix: String,
}

impl Endpoint {
    /// Reads `http://host[:port][/prefix]` or `https://…` (RFC 3986 without user info, query and fragment).
    ///
    /// # Errors
    /// Says what is wrong, without repeating the URL, which may carry a credential.
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        let (tls, rest) = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
            _ => return Err("base_url must begin with `http://` or `https://`"),
        };
        if url.bytes().any(|byte| !byte.is_ascii_graphic()) {
            return Err("base_url must be visible ASCII without spaces");
        }
        if rest.contains(['?', '#']) {
            return Err("base_url must not have a query or a fragment");
        }
        let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        if authority.contains('@') {
            return Err("base_url must not hold credentials; they have their own field");
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(bracketed) => {
                let (host, port) = bracketed.split_once(']').ok_or("`[` without `]` in base_url")?;
                host.parse::<std::net::Ipv6Addr>()
                    .map_err(|_| "base_url's host is not an IPv6 address")?;
                (
                    host,
                    port.strip_prefix(':')
                        .or(if port.is_empty() { None } else { Some("") }),
                )
            }
            None => authority
                .split_once(':')
                .map_or((authority, None), |(host, port)| (host, Some(port))),
        };
        let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b':');
        if host.is_empty() || host.len() > 253 || !host.bytes().all(named) {
            return Err("base_url has no valid host");
        }
        let port = match port {
            None => {
                if tls {
                    443
                } else {
                    80
                }
            }
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or("base_url's port must be 1..=65535")?,
        };
        Ok(Self {
            tls,
            host: host.to_ascii_lowercase(),
            port,
            path_prefix: path.trim_end_matches('/').to_owned(),
        })
    }

    /// The Host header: the port only if it is not the scheme's own.
    pub fn host_header(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        match (self.tls, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        for (url, tls, host, port, prefix, header) in [
            (
                "https://api.example.com",
                true,
                "api.example.com",
                443,
                "",
                "api.example.com",
            ),
            (
                "https://API.example.com:443/",
                true,
                "api.example.com",
                443,
                "",
                "api.example.com",
            ),
            (
                "http://10.0.0.1:8000/openai/",
                false,
                "10.0.0.1",
                8000,
                "/openai",
                "10.0.0.1:8000",
            ),
            ("http://[::1]:81/a/b", false, "::1", 81, "/a/b", "[::1]:81"),
            ("HTTP://[::1]", false, "::1", 80, "", "[::1]"),
        ] {
            let endpoint = Endpoint::parse(url).unwrap();
            assert_eq!(
                (
                    endpoint.tls,
                    endpoint.host.as_str(),
                    endpoint.port,
                    endpoint.path_prefix.as_str()
                ),
                (tls, host, port, prefix),
                "{url}"
            );
            assert_eq!(endpoint.host_header(), header, "{url}");
        }
        for url in [
            "",
            "ftp://a",
            "a.com",
            "http://",
            "http://:80",
            "http://a:0",
            "http://a:99999",
            "http://a:",
            "http://u:p@a",
            "http://a?x",
            "http://a#x",
            "http://[::1",
            "http://[::1]x",
            "http://[x]",
            "http://a b",
            "http://é",
        ] {
            assert!(Endpoint::parse(url).is_err(), "{url}");
        }
    }
}
