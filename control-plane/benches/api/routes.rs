//! Every list, chart and search.

use super::history::DAYS;
use super::large::{DAY, Large, channel, model};

/// Every list, chart and search.
pub fn routes(large: &Large, last: u64) -> Vec<String> {
    let code = channel(large.channels / 20);
    let name = model(large.models / 2);
    let (from, to) = (DAY, DAY + 86_400);
    let evening_ms = (DAY + 72_000) * 1_000;
    let id = last / 2;
    let id = format!("{id:016x}{:016x}", id.rotate_left(17));
    let mut all: Vec<String> = [
        "/channels?limit=100",
        "/channels?limit=100&search=application%209&sort=name&order=desc",
        "/channels?limit=100&tag=t3&enabled=true",
        "/models?limit=100&search=99",
        "/models?limit=100&provider=p&sort=name",
        "/rules?limit=500",
        "/providers",
        "/templates",
        "/settings",
        "/documents",
        "/versions",
        "/schedules",
        "/deployments?limit=100",
        "/deployments?trouble=true",
        "/limits?limit=100",
        "/limits?offset=9900&limit=100",
        "/inflight",
        "/instance",
        "/instances",
        "/tokenizers",
        "/accounts",
        "/audit?limit=100",
        "/audit?search=nothing",
        "/requests?limit=100",
        "/requests?limit=100&class=limit",
        "/requests?limit=100&status=500",
        "/session",
        "/accounts/x",
        "/roles",
        "/roles/role7",
        "/tokens",
        "/login/ways",
        "/alerts",
        "/alerts?state=firing&rule=limit_nearly_used&severity=warning",
        "/alerts/silences",
        "/audit?limit=100&actor=person7",
        "/audit?limit=100&resource=channels&action=update&target=app00500",
        "/audit?limit=100&outcome=denied",
        "/audit?limit=100&outcome=failed",
        "/audit?limit=100&search=person49",
        "/audit/77",
        "/backups",
        "/counting-rules",
        "/rule-templates",
        "/rules/rule%200",
        "/providers/p",
        "/documents/tollgate.channels.json",
        "/versions/50",
        "/versions/50/diff",
        "/versions/50/documents/tollgate.channels.json",
        "/schema/channels",
        "/drain",
        "/emergency",
        "/experiments",
        "/latency",
        "/latency?model=model-0500",
        "/health",
        "/openapi.json",
        "/docs",
        "/schedules/x0000001",
    ]
    .map(str::to_owned)
    .into();
    all.extend([
        format!("/requests?limit=100&deployment={name}/a"),
        "/requests?limit=100&flag=shadow".to_owned(),
        "/requests?limit=100&experiment=e1&group=new".to_owned(),
        format!("/models/{name}/deployments/{name}%2Fa"),
        format!("/deployments/{name}/a"),
        format!("/channels/{code}"),
        format!("/channels/{code}/effective"),
        format!("/channels/{code}/limits"),
        format!("/models/{name}"),
        format!("/models/{name}/deployments"),
        format!("/deployments?model={name}"),
        format!("/requests?limit=100&channel={code}"),
        format!("/requests?limit=100&channel={code}&model={name}"),
        format!("/requests?limit=100&model={name}"),
        format!("/requests?limit=100&to_ms={evening_ms}"),
        format!("/requests?limit=100&before={}", last / 2),
        format!("/requests?limit=1&id={id}"),
        format!("/requests/{}", last / 2),
        format!("/usage?step=600&from={}&to={to}", to - 3_600),
        format!("/usage?step=600&from={from}&to={to}&channel={code}"),
        format!("/usage/series?from={from}&to={to}&step=600"),
        format!("/usage/series?from={from}&to={to}&step=3600"),
        format!("/usage/series?from={from}&to={to}&step=3600&group_by=channel"),
        format!("/usage/series?from={from}&to={to}&step=3600&group_by=model"),
        format!("/usage/series?from={from}&to={to}&step=600&channel={code}"),
        format!("/usage/series?from={from}&to={to}&step=600&model={name}"),
        format!("/usage/series?from={from}&to={to}&step=600&channel={code}&group_by=model"),
        format!("/usage/series?from={}&to={to}&step=60", to - 3_600),
        format!("/usage/series?from={from}&to={to}&step=600&group_by=channel"),
        format!("/usage/series?from={from}&to={to}&step=600&group_by=channel_model"),
        format!(
            "/usage/series?from={}&to={to}&step=600&group_by=model",
            from + 600
        ),
        format!("/usage/series?from={from}&to={to}&step=600&group_by=version"),
        format!("/usage/series?from={from}&to={to}&step=3600&group_by=version&model={name}"),
        format!(
            "/usage/series?from={}&to={to}&step=60&group_by=channel",
            to - 3_600
        ),
        format!(
            "/usage/series?from={}&to={to}&step=60&group_by=version",
            to - 3_600
        ),
        format!("/usage/series?from={}&to={to}&step=60&group_by=group", to - 3_600),
    ]);
    // Two days, two weeks and three months, as the dashboard asks for them; and in the middle of buckets.
    for (days, step) in [(2, 600), (14, 3_600), (DAYS, 86_400)] {
        let from = to - days * 86_400;
        for by in ["none", "channel", "model", "version", "deployment", "group"] {
            all.push(format!(
                "/usage/series?from={from}&to={to}&step={step}&group_by={by}&top=8"
            ));
        }
        all.extend([
            format!("/usage/series?from={from}&to={to}&step={step}&group_by=version&model={name}"),
            format!("/usage/series?from={from}&to={to}&step={step}&group_by=group&experiment=e1"),
            format!("/usage/series?from={from}&to={to}&step={step}&channel={code}"),
            format!("/usage/series?from={from}&to={to}&step={step}&channel={code}&group_by=model"),
            format!("/rules/rule%200/shadow?from={}&to={}", from + 4_321, to - 1_234),
            format!("/rules/rule%200/shadow?from={from}&to={to}"),
            format!("/rules/rule%203/shadow?from={from}&to={to}"),
            format!("/experiments/e1?step=600&from={from}&to={to}"),
        ]);
    }
    all.push(format!("/rules/rule%20400/shadow?from={from}&to={to}"));
    all.push("/experiments/e1".to_owned());
    all.into_iter().map(|path| format!("/api/v1{path}")).collect()
}

/// Routes that list, chart and search nothing, and why.
pub const OTHERS: [(&str, &str); 10] = [
    (
        "/audit/verify",
        "goes through the whole log, which is what it is for",
    ),
    ("/backup", "makes an archive of everything"),
    ("/backups/{name}", "hands over an archive"),
    (
        "/instances/{id}/configuration",
        "writes files for an instance that does not exist yet",
    ),
    ("/live", "does not end"),
    ("/oidc/login", "sends a browser elsewhere"),
    ("/oidc/callback", "comes back from there"),
    ("/templates/{id}", "like a rule"),
    ("/rule-templates/{id}", "like a rule"),
    ("/counting-rules/{id}", "like a rule"),
];

/// Routes of the API that are neither measured nor known for something else.
pub fn forgotten(measured: &[String]) -> Vec<String> {
    let parts = |path: &str| -> Vec<String> {
        let path = path.split('?').next().unwrap_or_default();
        path.split('/').map(str::to_owned).collect()
    };
    let is_of = |path: &String, route: &str| {
        let (path, route) = (parts(path), parts(route));
        let fits = |(part, wanted): (&String, &String)| wanted.starts_with('{') || part == wanted;
        let rest = route.last().is_some_and(|last| last.starts_with("{*"));
        (path.len() == route.len() || rest && path.len() >= route.len()) && path.iter().zip(&route).all(fits)
    };
    let is_known = |route: &str| OTHERS.iter().any(|(other, _)| format!("/api/v1{other}") == route);
    let routes = tollgate::api::sketches();
    routes
        .into_iter()
        .filter(|route| route.method == "GET" && !is_known(&route.path))
        .filter(|route| !measured.iter().any(|path| is_of(path, &route.path)))
        .map(|route| route.path)
        .collect()
}
