//! What `idlewatt bench` measured here: kept, and sent to hubs that publish such tables.

use idlewatt_control::{Code, ControlError};
use idlewatt_protocol::bench::BenchReport;

use crate::node::Node;

impl Node {
    /// Keeps a report; with `publish` sends it, signed, to every hub joined. Gives the pages' addresses.
    pub(crate) async fn keep_bench(
        &self,
        _report: Box<BenchReport>,
        _publish: bool,
    ) -> Result<Vec<String>, ControlError> {
        Err(ControlError::new(
            Code::Internal,
            "Reports are not kept yet.",
            "This version cannot keep them.",
            "Write the report to a file with `--out`.",
        ))
    }
}
