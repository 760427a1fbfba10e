//! What a person is told outside of the window: why there is none, or no engine.

use std::io::Write as _;

use tracing_subscriber::EnvFilter;

/// Says why this program ends: to the terminal, and where it has none, in a dialog.
pub(crate) fn failure(error: &anyhow::Error) {
    // Nothing is left to tell when stderr itself is closed.
    drop(writeln!(std::io::stderr(), "idlewatt-desktop: {error:#}"));
    #[cfg(not(target_os = "linux"))]
    rfd::MessageDialog::new()
        .set_level(rfd::MessageLevel::Error)
        .set_title("Idlewatt")
        .set_description(paragraphs(&format!("{error:#}")))
        .show();
}

/// Warnings to stderr, or what `RUST_LOG` wants.
pub(crate) fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

/// An error's lines as a dialog shows them: what happened, why, what to do.
#[cfg(any(test, not(target_os = "linux")))]
fn paragraphs(error: &str) -> String {
    error.replace("\n  why: ", "\n\n").replace("\n  do:  ", "\n\n")
}

#[cfg(test)]
mod tests {
    use idlewatt_control::{Code, ControlError};

    use super::*;

    #[test]
    fn a_dialog_shows_what_why_and_what_to_do_without_marks_for_a_terminal() {
        let error = ControlError::new(Code::PortTaken, "Cannot listen.", "Another does.", "Choose another.");
        let error = anyhow::Error::from(error);
        assert_eq!(paragraphs(&format!("{error:#}")), "Cannot listen.\n\nAnother does.\n\nChoose another.");
    }
}
