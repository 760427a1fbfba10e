//! `idlewatt schedule`.

use idlewatt_control::schedule::{Outlook, Schedule};
use jiff::Zoned;

use super::{columns, moment};

pub(super) fn schedule(schedule: &Schedule, now: &Zoned) -> String {
    let rules: String = schedule.rules.iter().map(|rule| format!("{rule}\n")).collect();
    format!("{rules}\n{}", outlook(&schedule.outlook, now))
}

pub(super) fn outlook(outlook: &Outlook, now: &Zoned) -> String {
    let rows = outlook.stretches.iter().enumerate().map(|(index, it)| {
        let from = if index == 0 { "now".to_owned() } else { moment(it.from, now) };
        vec![from, it.sentence.clone()]
    });
    columns(&rows.collect::<Vec<_>>())
}
