//! What the tray shows, made from one status.

use idlewatt_control::{PauseFor, State, Status};
use idlewatt_protocol::PauseCode;
use serde::{Deserialize, Serialize};

/// The longest status line of the menu, in UTF-16 units; longer sentences are cut.
const STATUS_LINE: usize = 56;
/// What stands where a sentence was cut.
const CUT: &str = " …";
/// A clause shorter than this says too little by itself, bytes.
const CLAUSE: usize = 20;

/// Everything the tray shows. Two equal views look the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrayView {
    /// The glyph.
    pub icon: Icon,
    /// The program's name.
    pub title: String,
    /// What is happening and why, as one sentence.
    pub tooltip: String,
    /// From top to bottom.
    pub menu: Vec<Item>,
}

/// The glyph, one artwork each in `icons/tray`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Icon {
    /// Takes requests.
    Sharing,
    /// Gives the GPU back right now.
    Yielding,
    /// Does not share.
    Paused,
    /// Wants to, and reaches no network.
    Offline,
    /// Something wants a person.
    Attention,
}

/// One line of the menu.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Item {
    /// To be read, not chosen.
    Text(String),
    /// To be chosen.
    Choice {
        /// What it says.
        label: String,
        /// What it does.
        action: Action,
    },
    /// A line between groups.
    Separator,
}

/// What a person chose in the tray.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Open the window.
    Open,
    /// Stop sharing for a time.
    Pause(PauseFor),
    /// Share again, as far as the rules allow.
    Resume,
    /// Put aside for a time that somebody is here, and the hours.
    ShareNow {
        /// How long.
        seconds: u32,
    },
    /// Give the GPU back at once, its memory too, and share nothing until told.
    GiveBack,
    /// Stop sharing and end the program.
    Quit,
}

impl From<&Status> for TrayView {
    fn from(status: &Status) -> Self {
        let notice = status.attention.first();
        let icon = match status.state {
            // A yield lasts a moment and a person watches it; a notice waits.
            State::Yielding => Icon::Yielding,
            _ if notice.is_some() => Icon::Attention,
            State::Sharing => Icon::Sharing,
            State::Paused => Icon::Paused,
            State::Offline => Icon::Offline,
        };
        let mut menu = vec![Item::Text(shorten(&status.sentence, STATUS_LINE))];
        if let Some(notice) = notice {
            menu.push(choice(shorten(&notice.what, STATUS_LINE), Action::Open));
        }
        menu.push(Item::Separator);
        if status.reasons.iter().any(|reason| reason.code == PauseCode::PausedByHost) {
            menu.push(Item::Text("Your GPU is yours".to_owned()));
            menu.push(choice("Resume sharing", Action::Resume));
        } else {
            // Paused by a rule, a model may still be loaded: there is memory to give back, and sharing would begin again.
            menu.push(choice("Give my GPU back", Action::GiveBack));
            if status.share_now_until.is_some() {
                menu.push(choice("Go by my rules again", Action::Resume));
            } else if status.reasons.iter().any(|reason| is_put_aside(reason.code)) {
                menu.push(choice("Share now, for 1 hour", Action::ShareNow { seconds: 3_600 }));
            }
            menu.push(choice("Pause for 1 hour", Action::Pause(PauseFor::Seconds { seconds: 3_600 })));
            menu.push(choice("Pause until tomorrow", Action::Pause(PauseFor::Tomorrow)));
            menu.push(choice("Pause until I resume", Action::Pause(PauseFor::Resumed)));
        }
        menu.push(Item::Separator);
        menu.push(choice("Open Idlewatt", Action::Open));
        menu.push(choice("Stop sharing and quit", Action::Quit));
        let tooltip = match notice {
            Some(notice) => format!("{} {}", status.sentence, notice.what),
            None => status.sentence.clone(),
        };
        Self { icon, title: "Idlewatt".to_owned(), tooltip, menu }
    }
}

impl TrayView {
    /// The tooltip for a panel that keeps only so many UTF-16 units of it.
    #[must_use]
    pub fn tooltip_within(&self, units: usize) -> String {
        shorten(&self.tooltip, units.saturating_sub(CUT.len()))
    }

    /// Whether the two menus differ in their words at most. An open menu then need not be taken away under the pointer.
    #[must_use]
    pub fn has_lines_of(&self, other: &Self) -> bool {
        let same = |(ours, theirs): (&Item, &Item)| match (ours, theirs) {
            (Item::Text(_), Item::Text(_)) | (Item::Separator, Item::Separator) => true,
            (Item::Choice { action: ours, .. }, Item::Choice { action: theirs, .. }) => ours == theirs,
            _ => false,
        };
        self.menu.len() == other.menu.len() && self.menu.iter().zip(&other.menu).all(same)
    }
}

/// What "share now" ends.
const fn is_put_aside(code: PauseCode) -> bool {
    matches!(
        code,
        PauseCode::PersonHere | PauseCode::CannotSeeInput | PauseCode::OutsideWindow | PauseCode::Settling
    )
}

fn choice(label: impl Into<String>, action: Action) -> Item {
    Item::Choice { label: label.into(), action }
}

/// As much of a sentence as `units` UTF-16 units bear, cut where it reads best. The mark of a cut is two more.
fn shorten(sentence: &str, units: usize) -> String {
    let sentence = sentence.trim();
    let mut lengths = sentence.char_indices().scan(0, |length, (at, one)| {
        *length += one.len_utf16();
        Some((at, *length))
    });
    let Some((end, _)) = lengths.find(|(_, length)| *length > units) else {
        return sentence.trim_end_matches('.').to_owned();
    };
    let line = &sentence[..end];
    // Whole sentences first: "Paused: you are here. Shares again …" needs only its beginning. Then clauses, then words.
    let clause = || line.rfind(", ").filter(|at| *at >= CLAUSE);
    let cut = line.rfind(". ").or_else(clause).or_else(|| line.rfind(' ')).unwrap_or(end);
    let whole = line[cut..].starts_with(". ");
    let text = line[..cut].trim_end_matches([',', ';', ':', ' ']);
    if whole { text.to_owned() } else { format!("{text}{CUT}") }
}

#[cfg(test)]
mod tests {
    use idlewatt_control::{Notice, Presence, Reason, Today};
    use idlewatt_protocol::UnixMillis;

    use super::*;

    fn status(state: State, sentence: &str, reasons: &[PauseCode]) -> Status {
        let reason =
            |code: &PauseCode| Reason { code: *code, text: String::new(), since: UnixMillis(0), until: None };
        Status {
            version: "0.1.0".to_owned(),
            control: idlewatt_control::CONTROL_VERSION,
            state,
            sentence: sentence.to_owned(),
            since: UnixMillis(0),
            reasons: reasons.iter().map(reason).collect(),
            share_now_until: None,
            presence: Presence::Away,
            gpus: Vec::new(),
            services: Vec::new(),
            networks: Vec::new(),
            today: Today::default(),
            awake: None,
            running: 0,
            last_yield: None,
            attention: Vec::new(),
        }
    }

    #[test]
    fn sharing_offers_three_pauses() {
        let status = status(State::Sharing, "Sharing: 2 requests running for garage.", &[]);
        insta::assert_yaml_snapshot!(TrayView::from(&status));
    }

    #[test]
    fn yielding_says_so() {
        let status = status(State::Yielding, "Giving the GPU back: you are here.", &[PauseCode::PersonHere]);
        insta::assert_yaml_snapshot!(TrayView::from(&status));
    }

    #[test]
    fn a_pause_by_rule_may_still_be_made_longer_by_hand() {
        let sentence = "Paused: you are here. Shares again 10 minutes after you leave.";
        let status = status(State::Paused, sentence, &[PauseCode::PersonHere]);
        insta::assert_yaml_snapshot!(TrayView::from(&status));
    }

    #[test]
    fn share_now_is_offered_where_it_would_change_something_and_can_be_taken_back() {
        let label = |status: &Status| -> Vec<String> {
            let menu = TrayView::from(status).menu.into_iter();
            menu.filter_map(|item| match item {
                Item::Choice { label, action: Action::ShareNow { .. } | Action::Resume } => Some(label),
                _ => None,
            })
            .collect()
        };
        let mut away = status(State::Paused, "Paused: outside your hours.", &[PauseCode::OutsideWindow]);
        assert_eq!(label(&away), ["Share now, for 1 hour"]);
        assert_eq!(label(&status(State::Paused, "Paused: a game runs.", &[PauseCode::Game])), [""; 0]);
        away.share_now_until = Some(UnixMillis(1));
        assert_eq!(label(&away), ["Go by my rules again"]);
    }

    #[test]
    fn the_gpu_can_be_had_back_in_every_state_and_after_a_pause_by_hand_it_is_said_whose_it_is() {
        let menu = |state, reasons: &[_]| TrayView::from(&status(state, "", reasons)).menu;
        let gives_back = choice("Give my GPU back", Action::GiveBack);
        for state in [State::Sharing, State::Yielding, State::Paused, State::Offline] {
            assert!(menu(state, &[PauseCode::Game]).contains(&gives_back), "{state:?}");
        }
        let mine = menu(State::Paused, &[PauseCode::PausedByHost]);
        assert!(!mine.contains(&gives_back) && mine.contains(&Item::Text("Your GPU is yours".to_owned())));
    }

    #[test]
    fn a_pause_by_hand_offers_to_resume() {
        let status = status(State::Paused, "Paused by you until 18:00.", &[PauseCode::PausedByHost]);
        insta::assert_yaml_snapshot!(TrayView::from(&status));
    }

    #[test]
    fn offline_says_what_is_out_of_reach() {
        let status = status(State::Offline, "Offline: garage does not answer. Tries again by itself.", &[]);
        insta::assert_yaml_snapshot!(TrayView::from(&status));
    }

    #[test]
    fn a_notice_takes_the_glyph_and_a_line() {
        let mut status = status(State::Sharing, "Sharing: nobody asks right now.", &[]);
        status.attention.push(Notice {
            what: "garage refuses this node.".to_owned(),
            why: "The invite was withdrawn.".to_owned(),
            action: "Ask for a new invite.".to_owned(),
        });
        insta::assert_yaml_snapshot!(TrayView::from(&status));
    }

    #[test]
    fn a_long_sentence_is_cut_at_an_end_a_clause_or_a_word() {
        let line = |sentence| shorten(sentence, STATUS_LINE);
        assert_eq!(
            line("Paused: you are here. Shares again 10 minutes after you leave."),
            "Paused: you are here"
        );
        assert_eq!(
            line("Ready, no work: nobody in garage has asked for qwen3-30b-a3b-instruct since Tuesday"),
            "Ready, no work: nobody in garage has asked for …"
        );
        assert_eq!(
            line("Paused: you are here, no model is shared and no network is joined."),
            "Paused: you are here …"
        );
        let one_word = "ü".repeat(80);
        assert_eq!(line(&one_word), format!("{} …", "ü".repeat(STATUS_LINE)));
        assert_eq!(line(""), "");
    }

    #[test]
    fn a_tooltip_keeps_within_what_a_panel_bears_whatever_the_names_in_it_are_made_of() {
        for sentence in ["Sharing with garage. ".repeat(20), "🔋".repeat(200), "ü ".repeat(200)] {
            let view = TrayView::from(&status(State::Sharing, &sentence, &[]));
            let tooltip = view.tooltip_within(127);
            let units = tooltip.encode_utf16().count();
            assert!((100..=127).contains(&units), "{units} in {tooltip}");
        }
        let view = TrayView::from(&status(State::Sharing, "Sharing: nobody asks right now.", &[]));
        assert_eq!(view.tooltip_within(127), "Sharing: nobody asks right now");
    }

    #[test]
    fn another_sentence_leaves_the_lines_and_another_choice_does_not() {
        let view = |sentence, reasons: &[_]| TrayView::from(&status(State::Paused, sentence, reasons));
        let away = view("Paused: you are here.", &[PauseCode::PersonHere]);
        assert!(away.has_lines_of(&view("Paused: outside your hours.", &[PauseCode::OutsideWindow])));
        assert!(!away.has_lines_of(&view("Paused by you.", &[PauseCode::PausedByHost])));
    }
}
