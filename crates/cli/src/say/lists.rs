//! Lists: models, networks, requests.

use idlewatt_control::{ModelFile, Network, NetworkState, RequestRow, RowOutcome, Service, Yield};
use idlewatt_protocol::{MicroCredits, Scope};
use jiff::Zoned;

use super::energy::joules;
use super::{columns, grouped, moment, span};

pub(super) fn services(services: &[Service]) -> String {
    if services.is_empty() {
        return "No model server was found. Start one, then `idlewatt doctor`.\n".to_owned();
    }
    columns(&services.iter().map(|it| vec![it.model.clone(), service_facts(it)]).collect::<Vec<_>>())
}

/// A model in one line.
pub(super) fn service_line(service: &Service) -> String {
    format!("{} · {}", service.model, service_facts(service))
}

fn service_facts(service: &Service) -> String {
    let mut facts = vec![if service.shared { shared_with(service.scope) } else { "not shared" }.to_owned()];
    if let Some(problem) = &service.problem {
        facts.push(problem.clone());
    }
    if service.shared {
        facts.push(format!("{} of {} slots busy", service.busy, service.slots));
        facts.push(match service.price.0 {
            0 => "free".to_owned(),
            price => format!("{} credits a million tokens", MicroCredits(price)),
        });
    }
    if let Some(speed) = service.milli_tokens_per_s {
        facts.push(format!("{} tokens/s", speed / 1000));
    }
    facts.push(service.server.clone());
    facts.join(" · ")
}

/// Whom a service answers. A host that gave strangers a word may have taken it back for all services since.
const fn shared_with(scope: Scope) -> &'static str {
    match scope {
        Scope::Own => "shared with your own account alone",
        Scope::Circle => "shared with your circle",
        Scope::Public => "shared with strangers too, while share.strangers is set",
    }
}

pub(super) fn model_files(files: &[ModelFile]) -> String {
    if files.is_empty() {
        return "No model file was found. Name a folder that has GGUF files: `idlewatt config set managed.folders PATH`.\n"
            .to_owned();
    }
    let head = ["", "id", "model", "size", "where", "how it would be loaded"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(files.iter().map(|it| {
        let tenths = it.size.div_ceil(100_000_000);
        vec![
            if it.chosen { "*" } else { "" }.to_owned(),
            it.id.clone(),
            it.model.clone(),
            format!("{}.{} GB", tenths / 10, tenths % 10),
            it.source.clone(),
            it.plan.clone(),
        ]
    }));
    let run = match files.iter().any(|it| it.chosen) {
        true => "* is run whenever sharing may go on; `idlewatt models run off` ends that.",
        false => "`idlewatt models run ID` runs one whenever sharing may go on.",
    };
    format!("{}{run}\n", columns(&rows))
}

pub(super) fn networks(networks: &[Network]) -> String {
    if networks.is_empty() {
        return "No network is joined.\n".to_owned();
    }
    networks.iter().map(|it| format!("{}\n", network_line(it))).collect()
}

/// A network in one line.
pub(super) fn network_line(network: &Network) -> String {
    let state = match network.state {
        NetworkState::Connecting => "connecting",
        NetworkState::Connected => "connected",
        NetworkState::Waiting => "not reached, trying again",
        NetworkState::Refused => "refused",
    };
    let mut facts = vec![network.name.clone(), state.to_owned()];
    if let Some(account) = &network.account {
        facts.push(format!("account {account}"));
    }
    if let Some(reason) = &network.reason {
        facts.push(reason.clone());
    }
    if network.state == NetworkState::Connected {
        facts.push(format!("{} requests today", network.requests_today));
        facts.push(format!("{} credits", network.earned_today_ucr));
    }
    if network.unsettled > 0 {
        facts.push(format!("{} not settled yet", network.unsettled));
    }
    facts.join(" · ")
}

pub(super) fn requests(requests: &[RequestRow], now: &Zoned) -> String {
    if requests.is_empty() {
        return "No request was served yet.\n".to_owned();
    }
    let head = ["when", "model", "network", "tokens", "time", "outcome", "earned", "energy", "id"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(requests.iter().map(|it| {
        vec![
            moment(it.started, now),
            it.model.clone(),
            it.network.clone(),
            format!("{} + {}", grouped(it.tokens_in.into()), grouped(it.tokens_out.into())),
            span(it.duration_ms.into()),
            outcome(it.outcome).to_owned(),
            match it.earned_ucr {
                _ if it.own => "own".to_owned(),
                Some(earned) => earned.to_string(),
                None => "not settled".to_owned(),
            },
            it.energy.marginal_mj.map_or_else(|| "unknown".to_owned(), joules),
            it.id.to_string(),
        ]
    }));
    columns(&rows)
}

fn outcome(outcome: RowOutcome) -> &'static str {
    match outcome {
        RowOutcome::Running => "running",
        RowOutcome::Complete => "complete",
        RowOutcome::Cancelled => "cancelled",
        RowOutcome::Yielded => "yielded",
        RowOutcome::Failed => "failed",
        RowOutcome::Lost => "lost",
    }
}

pub(super) fn yields(yields: &[Yield], now: &Zoned) -> String {
    if yields.is_empty() {
        return "The GPU was not given back yet: nothing was shared when somebody wanted it.\n".to_owned();
    }
    let mut out = String::new();
    for it in yields {
        out.push_str(&format!("{}  {}\n", moment(it.seen, now), it.sentence));
        for step in &it.steps {
            out.push_str(&format!("    {:>6} ms  {}\n", step.at_ms, step.text));
        }
    }
    out
}
