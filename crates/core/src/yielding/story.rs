//! How a yield is told: one sentence, such as "GPU back in 0.31 s: a game started."

use idlewatt_protocol::PauseCode;

/// What is told of a yield.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Story {
    /// Why.
    pub cause: PauseCode,
    /// From the event until every shared connection was closed, ms.
    pub closed_ms: u32,
    /// Whether running requests were let end first.
    pub drained: bool,
    /// What became of the memory.
    pub memory: Told,
}

/// What became of the memory of what shared work loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It was not asked back, or is being asked back.
    Stays,
    /// It is free, and that was seen, this many ms after the event.
    Free {
        /// After the event, ms.
        at_ms: u32,
    },
    /// The servers agreed; nothing here tells what they hold.
    Unseen,
    /// This many bytes are held all the same.
    Kept(u64),
    /// A server can free nothing while it runs.
    Refused,
}

/// The yield in one sentence, or two where memory is still held.
#[must_use]
pub fn sentence(story: &Story) -> String {
    let cause = happened(story.cause);
    let closed = if story.drained {
        format!("Requests ended within {}", seconds(story.closed_ms))
    } else {
        format!("GPU back in {}", seconds(story.closed_ms))
    };
    match story.memory {
        Told::Stays => format!("{closed}: {cause}."),
        // With the last connection or soon after: one moment for a person.
        Told::Free { at_ms } if !story.drained && at_ms < story.closed_ms.saturating_add(5_000) => {
            format!("GPU back in {}, memory too: {cause}.", seconds(at_ms))
        }
        Told::Free { at_ms } => format!("{closed}, memory free after {}: {cause}.", seconds(at_ms)),
        Told::Unseen => {
            format!("{closed}: {cause}. Memory was asked back; nothing here tells whether it is free.")
        }
        Told::Kept(bytes) => format!(
            "{closed}: {cause}. Memory was asked back, but a model server still holds {}.",
            gigabytes(bytes)
        ),
        Told::Refused => {
            format!("{closed}: {cause}. Memory stays held: the model server frees none while it runs.")
        }
    }
}

/// What happened, as a clause: "a game started".
#[must_use]
pub const fn happened(code: PauseCode) -> &'static str {
    match code {
        PauseCode::PausedByHost => "you paused",
        PauseCode::PersonHere => "you came back",
        PauseCode::Game => "a game started",
        PauseCode::FullScreen => "a program went full screen",
        PauseCode::ListedApp => "a program of your list started",
        PauseCode::InCall => "a call began",
        PauseCode::GpuInUse => "another program wanted the GPU",
        PauseCode::MemoryShort => "memory ran short",
        PauseCode::LidClosed => "the lid was closed",
        PauseCode::Metered => "the connection is paid by volume",
        PauseCode::Price => "energy became too dear",
        PauseCode::Asleep => "the machine went to sleep",
        PauseCode::CannotSeeInput => "input could not be seen",
        PauseCode::OutsideWindow => "the share window ended",
        PauseCode::Settling => "it was settling",
        PauseCode::OnBattery => "the machine went on battery",
        PauseCode::TooHot => "a card was too hot",
        PauseCode::TooLoud => "a fan was too loud for quiet hours",
        PauseCode::DailyEnergy => "the day's energy was used",
        PauseCode::HostLoad => "your own work needed the power",
        PauseCode::CapUnenforceable => "nothing fitted under the cap",
        PauseCode::OwnUse => "you used the model yourself",
        PauseCode::CannotKeep => "the disk kept nothing",
        PauseCode::NothingToShare => "nothing was shared any more",
        PauseCode::NoNetwork => "the last network was left",
        PauseCode::Stopping => "the engine stopped",
    }
}

/// `6.2 GB`
#[must_use]
pub fn gigabytes(bytes: u64) -> String {
    let tenths = bytes.saturating_add(50_000_000) / 100_000_000;
    format!("{}.{} GB", tenths / 10, tenths % 10)
}

/// `0.004 s`, `0.31 s`, `12 s`: two digits that count.
fn seconds(ms: u32) -> String {
    match ms {
        0 => "less than 0.001 s".to_owned(),
        1..100 => format!("0.{ms:03} s"),
        100..1_000 => format!("0.{:02} s", ms / 10),
        1_000..10_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        _ => format!("{} s", ms / 1_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_yield_is_told_in_a_sentence_that_says_what_is_known_and_no_more() {
        let story =
            |cause, closed_ms, drained, memory| sentence(&Story { cause, closed_ms, drained, memory });
        let told = [
            story(PauseCode::PersonHere, 4, false, Told::Stays),
            story(PauseCode::PersonHere, 0, false, Told::Free { at_ms: 30_210 }),
            story(PauseCode::Game, 7, false, Told::Free { at_ms: 314 }),
            story(PauseCode::Game, 7, false, Told::Kept(6_218_000_000)),
            story(PauseCode::Game, 7, false, Told::Unseen),
            story(PauseCode::Game, 7, false, Told::Refused),
            story(PauseCode::OutsideWindow, 41_900, true, Told::Stays),
        ];
        insta::assert_snapshot!(told.join("\n"));
    }
}
