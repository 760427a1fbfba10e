//! A receipt whose signatures have been checked.

use idlewatt_protocol::MicroCredits;
use idlewatt_protocol::receipt::{Signed, Verified};

use super::energy::{joules, label};
use super::{columns, grouped, span};

/// What it says, and what it proves.
pub(crate) fn receipt(verified: &Verified) -> String {
    let receipt = &verified.receipt;
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut put = |name: &str, text: String| rows.push(vec![name.to_owned(), text]);
    put("receipt", receipt.id.to_string());
    put("hub", receipt.hub.to_string());
    put("consumer", receipt.consumer.clone());
    put("model", receipt.model.clone());
    put("outcome", format!("{:?}", receipt.outcome).to_lowercase());
    put(
        "paid",
        format!(
            "{} credits, of which fee {} (at {} a million tokens)",
            receipt.cost,
            receipt.fee,
            MicroCredits(receipt.price.0)
        ),
    );
    for (segment, statement) in receipt.segments.iter().zip(&verified.statements) {
        let usage = segment.usage;
        put(
            "segment",
            format!(
                "{} by node {}: {} + {} tokens, earned {}",
                segment.artefact.name(),
                segment.node.short(),
                grouped(usage.prompt.into()),
                grouped(usage.completion.into()),
                segment.earned
            ),
        );
        match (statement, &segment.statement) {
            (Some(statement), _) => {
                let energy = statement.energy;
                let amount = energy.marginal_mj.map_or_else(
                    || "energy unknown".to_owned(),
                    |energy_mj| format!("{} {}", joules(energy_mj), label(energy.label)),
                );
                put(
                    "",
                    format!("signed by the node; {} · {amount}", span(statement.timings.total_ms.into())),
                );
            }
            (None, Signed::Unsigned(why)) => put("", format!("not signed by the node: {why}")),
            (None, Signed::Signed(_)) => {}
        }
    }
    put("artefact", receipt.verification.clone());
    format!(
        "{}\nEvery signature and figure fits. This proves who said what; it does not prove which model ran.\n",
        columns(&rows)
    )
}
