//! Receipts of requests that this node answered, as their hub sent them when it settled.

use idlewatt_control::{Code, ControlError};
use idlewatt_protocol::RequestId;
use idlewatt_protocol::receipt::ReceiptFile;

use crate::desk::kept;
use crate::node::Node;

/// The receipt of a request. Its signatures were checked when it came; the salt of its commitments is the consumer's and
/// is not in it.
///
/// # Errors
/// When there is none yet, or the store cannot be read.
pub(crate) async fn of(node: &Node, id: RequestId) -> Result<ReceiptFile, ControlError> {
    let receipt = kept(node.store.receipt(id).await)?.ok_or_else(|| {
        ControlError::new(
            Code::NotFound,
            "There is no receipt of this request yet.",
            "A hub writes one when it settles the request; refused and void requests have none.",
            "Try again in a moment, or when the hub can be reached.",
        )
    })?;
    Ok(ReceiptFile { receipt, salt: None })
}
