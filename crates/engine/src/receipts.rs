//! Receipts of requests that this node answered, asked of the hub that wrote them.

use idlewatt_control::{Code, ControlError, RequestRow};
use idlewatt_protocol::receipt::ReceiptFile;

use crate::node::Node;

/// Fetches a receipt and checks every signature, and that the hub is the one that was joined.
///
/// # Errors
/// When the hub cannot be asked, does not give it to this node, or gives something else.
pub(crate) async fn fetch(node: &Node, row: &RequestRow) -> Result<ReceiptFile, ControlError> {
    let network = node.networks.meant(&row.network).ok_or_else(|| {
        ControlError::new(
            Code::NotFound,
            "This node has left the hub that wrote the receipt.",
            "Receipts are kept by their hub and by whoever asked.",
            "Join the hub again, or ask the consumer for the file.",
        )
    })?;
    let base = network.urls.first().map(|url| url.trim_end_matches('/')).unwrap_or_default();
    let client = reqwest::Client::builder().timeout(std::time::Duration::from_secs(10)).build();
    let mut request = client.map_err(|error| down(&error))?.get(format!("{base}/v1/receipts/{}", row.id));
    if let Some(key) = node.own_hub_key(&network.id) {
        request = request.bearer_auth(key);
    }
    let answer = request.send().await.map_err(|error| down(&error))?;
    match answer.status().as_u16() {
        200 => {}
        401 | 403 => {
            return Err(ControlError::new(
                Code::Unauthorized,
                "The hub gives this receipt to whoever asked, with their key.",
                "A receipt carries the salt of its commitments, which is the consumer's. This node keeps its own signed \
                 statement until the hub has settled it.",
                format!("With the consumer's key: GET {base}/v1/receipts/{}.", row.id),
            ));
        }
        _ => {
            return Err(ControlError::new(
                Code::NotFound,
                "The hub has no receipt of this request yet.",
                "One is written when the request is settled; refused and void ones have none.",
                "Try again in a moment.",
            ));
        }
    }
    let file: ReceiptFile = answer.json().await.map_err(|error| down(&error))?;
    let verified = file.verify().map_err(|error| forged(&error.to_string()))?;
    if verified.receipt.hub != network.key || verified.receipt.id != row.id {
        return Err(forged("it is of another hub or request"));
    }
    Ok(file)
}

fn down(error: &reqwest::Error) -> ControlError {
    ControlError::new(
        Code::HubDown,
        format!(
            "The hub could not be asked for the receipt: {}.",
            if error.is_timeout() { "it did not answer in time" } else { "it does not answer" }
        ),
        "The receipt is safe with the hub.",
        "Try again when the hub is reachable.",
    )
}

fn forged(why: &str) -> ControlError {
    ControlError::new(
        Code::WrongHubKey,
        format!("The receipt does not verify: {why}."),
        "What answers at the hub's address is not the hub, or the receipt was altered.",
        "Tell whoever runs the hub.",
    )
}
