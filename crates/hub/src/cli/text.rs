//! What commands print: JSON for programs, tables and sentences for people.

use std::fmt::Write as _;

use idlewatt_hub::admin::{Answer, NewInvite};
use idlewatt_hub::qr;
use idlewatt_hub::store::{Account, Checked, Group, Key};
use idlewatt_hub_core::allowance::KeyLimits;
use idlewatt_hub_core::ledger::{AccountName, CSV_HEAD, Statement, Tally, kwh};
use idlewatt_protocol::UnixMillis;

pub(super) fn json(answer: &Answer) -> serde_json::Result<String> {
    match answer {
        Answer::Key(it) => serde_json::to_string(it),
        Answer::Revoked(it) => serde_json::to_string(it),
        Answer::Keys(it) => serde_json::to_string(it),
        Answer::Invite(it) => serde_json::to_string(it),
        Answer::Account(it) => serde_json::to_string(it),
        Answer::Accounts(it) => serde_json::to_string(it),
        Answer::Group(it) => serde_json::to_string(it),
        Answer::Groups(it) => serde_json::to_string(it),
        Answer::AdminLink { link } => serde_json::to_string(&serde_json::json!({ "link": link })),
        Answer::Nodes(it) => serde_json::to_string(it),
        Answer::Limited(it) => serde_json::to_string(it),
        Answer::Strangers { are_let_in } => {
            serde_json::to_string(&serde_json::json!({ "strangers": are_let_in }))
        }
        Answer::Statements(it) => serde_json::to_string(it),
        Answer::Backup(it) => serde_json::to_string(it),
        Answer::Audit(it) => serde_json::to_string(it),
    }
}

pub(super) fn text(answer: &Answer) -> String {
    match answer {
        Answer::Key(new) => {
            format!("{}\nThis key of {} is shown once; the hub keeps only its hash.", new.key, new.account)
        }
        Answer::Revoked(key) => format!("{}… of {} is revoked.", key.key, key.account),
        Answer::Limited(key) => keys(std::slice::from_ref(key)),
        Answer::Keys(list) => keys(list),
        Answer::Invite(it) => invite(it),
        Answer::Account(account) => accounts(std::slice::from_ref(account)),
        Answer::Accounts(list) => accounts(list),
        Answer::Group(group) => group_text(group),
        Answer::Groups(groups) => table(
            &["group", "may owe", "together", "members"],
            groups.iter().map(|group| {
                let members: Vec<&str> = group.members.iter().map(|it| it.account.as_str()).collect();
                [
                    group.group.to_string(),
                    group.overdraft_ucr.to_string(),
                    group.balance_ucr.to_string(),
                    members.join(", "),
                ]
            }),
        ),
        Answer::Strangers { are_let_in: true } => {
            "Open to strangers: accounts of no group share with nobody, unless a host offers a service to all.".into()
        }
        Answer::Strangers { are_let_in: false } => {
            "Closed to strangers: accounts of no group share with everyone on this hub.".into()
        }
        Answer::Statements(list) => statements(list),
        Answer::Backup(it) => format!(
            "The backup is in {} ({} KiB), and holds: {} accounts, {} postings, {} receipts.\nIt holds the hub's key too: keep \
             it like one. To go back to it: `idlewatt-hub serve --data` on a copy of it.",
            it.folder.display(),
            it.bytes.div_ceil(1024),
            it.checked.accounts,
            it.checked.postings,
            it.checked.receipts
        ),
        Answer::Audit(entries) => table(
            &["entry", "when", "by", "what"],
            entries.iter().map(|it| [it.seq.to_string(), day(it.at), it.actor.clone(), it.act.to_string()]),
        ),
        Answer::AdminLink { link } => {
            format!("{link}\nIt opens the admin page once, within ten minutes, in a browser on this machine.")
        }
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

fn invite(NewInvite { invite, page, .. }: &NewInvite) -> String {
    let machine = format!("a machine lend its GPU here, with `idlewatt join` there:\n{invite}\n\n");
    let Some(page) = page else {
        return format!("Let {machine}For one machine, within 24 hours. Keep it to yourself until then.");
    };
    format!(
        "{}\nScan it with a telephone to chat there, or open it in a browser:\n{page}\n\nOr let {machine}For one of them, \
         within 24 hours. Keep it to yourself until then.",
        qr::for_terminal(page).unwrap_or_default()
    )
}

fn keys(list: &[Key]) -> String {
    table(
        &["key", "account", "made", "by", "limits", "today", "ends"],
        list.iter().map(|key| {
            let by = key.node.map_or_else(|| "operator".to_owned(), |node| format!("node {}", node.short()));
            let ends = match (key.revoked, key.expires) {
                (Some(at), _) => format!("revoked {}", day(at)),
                (None, expires) => maybe_day(expires),
            };
            [
                format!("{}…", key.key),
                key.account.to_string(),
                day(key.created),
                by,
                limits(&key.limits),
                key.spent_today_ucr.to_string(),
                ends,
            ]
        }),
    )
}

fn limits(limits: &KeyLimits) -> String {
    let KeyLimits { requests_per_minute, tokens_per_minute, spend_per_day_ucr, models, scope } = limits;
    let parts = [
        requests_per_minute.map(|it| format!("{it} requests/min")),
        tokens_per_minute.map(|it| format!("{it} tokens/min")),
        spend_per_day_ucr.map(|it| format!("{it} credits/day")),
        models.as_ref().map(|it| it.join(" ")),
        Some(scope.to_string()),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn accounts(list: &[Account]) -> String {
    table(
        &["account", "balance", "reserved", "may owe", "group", "remarks"],
        list.iter().map(|it| {
            let suspended = it.suspended.map(|at| format!("suspended since {}", day(at)));
            let refused = it.refuses.accounts.iter().chain(&it.refuses.groups).map(AccountName::as_str);
            let refused: Vec<&str> = refused.collect();
            let refuses = (!refused.is_empty()).then(|| format!("refuses {}", refused.join(" ")));
            [
                it.account.to_string(),
                it.balance_ucr.to_string(),
                it.reserved_ucr.to_string(),
                it.overdraft_ucr.map_or_else(|| "no limit".to_owned(), |limit| limit.to_string()),
                it.group.as_ref().map_or_else(String::new, ToString::to_string),
                suspended.into_iter().chain(refuses).collect::<Vec<_>>().join(", "),
            ]
        }),
    )
}

fn group_text(group: &Group) -> String {
    let Group { group, overdraft_ucr, members, balance_ucr } = group;
    let mut text = format!("{group}: each member may owe up to {overdraft_ucr} credits.");
    if members.is_empty() {
        return text;
    }
    let together = match balance_ucr.0 {
        0 => "Their balances together are 0: what one owes, another is owed.".to_owned(),
        _ => format!("Their balances together are {balance_ucr}: the difference is with others on this hub."),
    };
    let rows = members
        .iter()
        .map(|it| [it.account.to_string(), it.balance_ucr.to_string(), it.overdraft_ucr.to_string()]);
    // Writing to a String cannot fail.
    let _ = write!(text, "\n{}\n{together}", table(&["member", "balance", "may owe"], rows));
    text
}

fn statements(list: &[Statement]) -> String {
    let mut text = table(
        &[
            "account",
            "month",
            "began with",
            "earned",
            "paid",
            "granted",
            "ended with",
            "tokens given",
            "taken",
            "own",
            "kWh measured",
        ],
        list.iter().map(|it| {
            let tally = &it.tally;
            [
                it.account.to_string(),
                it.month.to_string(),
                it.opening_ucr.to_string(),
                tally.earned_ucr.to_string(),
                tally.paid_ucr.to_string(),
                tally.granted_ucr.to_string(),
                it.closing_ucr.to_string(),
                tally.given_in.saturating_add(tally.given_out).to_string(),
                tally.taken_in.saturating_add(tally.taken_out).to_string(),
                tally.own_tokens.to_string(),
                measured(tally),
            ]
        }),
    );
    if let Some(first) = list.first() {
        let words = match first.issuance_ucr.0 {
            0 => "Nothing was granted out of nothing on this hub: what one has, others owe.".to_owned(),
            _ => {
                format!("issuance stands at {}: so much this hub granted out of nothing.", first.issuance_ucr)
            }
        };
        let _ = write!(text, "\n{words}");
    }
    text
}

/// Energy, and of which part of the tokens, where it is not all.
fn measured(tally: &Tally) -> String {
    match (tally.measured_out, tally.given_out) {
        (_, 0) => String::new(),
        (0, _) => "unknown".to_owned(),
        (part, all) if part == all => kwh(tally.measured_mj),
        (part, all) => format!("{} for {part} of {all} tokens", kwh(tally.measured_mj)),
    }
}

pub(super) fn csv_text(list: &[Statement]) -> String {
    let rows = list.iter().map(Statement::csv_row);
    std::iter::once(CSV_HEAD.to_owned()).chain(rows).collect::<Vec<_>>().join("\n")
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
