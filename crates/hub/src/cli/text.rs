//! What commands print: JSON for programs, tables and sentences for people.

use std::fmt::Write as _;

use idlewatt_hub::admin::Answer;
use idlewatt_hub::store::{Account, Checked};
use idlewatt_hub_core::ledger::AccountName;
use idlewatt_protocol::UnixMillis;

pub(super) fn json(answer: &Answer) -> serde_json::Result<String> {
    match answer {
        Answer::Key(it) => serde_json::to_string(it),
        Answer::Revoked(it) => serde_json::to_string(it),
        Answer::Keys(it) => serde_json::to_string(it),
        Answer::Invite { invite } => serde_json::to_string(&serde_json::json!({ "invite": invite })),
        Answer::Account(it) => serde_json::to_string(it),
        Answer::Accounts(it) => serde_json::to_string(it),
        Answer::Group(it) => serde_json::to_string(it),
        Answer::Groups(it) => serde_json::to_string(it),
        Answer::Nodes(it) => serde_json::to_string(it),
    }
}

pub(super) fn text(answer: &Answer) -> String {
    match answer {
        Answer::Key(new) => {
            format!("{}\nThis key of {} is shown once; the hub keeps only its hash.", new.key, new.account)
        }
        Answer::Revoked(key) => format!("{}… of {} is revoked.", key.key, key.account),
        Answer::Keys(keys) => table(
            &["key", "account", "made", "by", "revoked"],
            keys.iter().map(|key| {
                let by =
                    key.node.map_or_else(|| "operator".to_owned(), |node| format!("node {}", node.short()));
                [
                    format!("{}…", key.key),
                    key.account.to_string(),
                    day(key.created),
                    by,
                    maybe_day(key.revoked),
                ]
            }),
        ),
        Answer::Invite { invite } => {
            format!("{invite}\nFor one node, within 24 hours: `idlewatt join` there, or open it.")
        }
        Answer::Account(account) => accounts(std::slice::from_ref(account)),
        Answer::Accounts(list) => accounts(list),
        Answer::Group(group) => {
            format!("{}: each member may owe up to {} credits.", group.group, group.overdraft_ucr)
        }
        Answer::Groups(groups) => table(
            &["group", "may owe", "members"],
            groups.iter().map(|group| {
                let members: Vec<&str> = group.members.iter().map(AccountName::as_str).collect();
                [group.group.to_string(), group.overdraft_ucr.to_string(), members.join(", ")]
            }),
        ),
        Answer::Nodes(nodes) => table(
            &["node", "name", "account", "program", "last seen"],
            nodes.iter().map(|node| {
                [
                    node.node.short(),
                    node.name.clone().unwrap_or_default(),
                    node.account.to_string(),
                    node.agent.clone(),
                    day(node.last_seen),
                ]
            }),
        ),
    }
}

fn accounts(list: &[Account]) -> String {
    table(
        &["account", "balance", "reserved", "may owe", "group"],
        list.iter().map(|it| {
            [
                it.account.to_string(),
                it.balance_ucr.to_string(),
                it.reserved_ucr.to_string(),
                it.overdraft_ucr.map_or_else(|| "no limit".to_owned(), |limit| limit.to_string()),
                it.group.as_ref().map_or_else(String::new, ToString::to_string),
            ]
        }),
    )
}

pub(super) fn check_text(checked: &Checked) -> String {
    let Checked { accounts, postings, receipts, breaches, .. } = checked;
    let looked = format!("{accounts} accounts, {postings} postings, {receipts} receipts");
    if breaches.is_empty() {
        return format!("The ledger holds: {looked}.");
    }
    let mut text = format!("The ledger does NOT hold ({looked}):");
    for breach in breaches {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n- {breach}");
    }
    text
}

/// Columns as wide as their widest cell, two spaces apart.
fn table<const N: usize>(head: &[&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = std::iter::once(head.map(str::to_owned)).chain(rows).collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; N]| {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The moment as people read it, in UTC.
fn day(at: UnixMillis) -> String {
    jiff::Timestamp::from_millisecond(at.0)
        .map(|at| at.strftime("%Y-%m-%d %H:%M").to_string())
        .unwrap_or_default()
}

fn maybe_day(at: Option<UnixMillis>) -> String {
    at.map(day).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up() {
        let rows = [["a", "1"], ["long", "22"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&["name", "n"], rows.into_iter()), "name  n\na     1\nlong  22");
    }
}
