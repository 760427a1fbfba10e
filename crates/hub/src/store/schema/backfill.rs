//! The months of postings and receipts that were kept before months were: once, on the way to form 4.
//!
//! Reads what was kept by its own words, not by today's types, which may change.

use data_encoding::{BASE64, BASE64URL_NOPAD};
use rusqlite::{Connection, params};
use serde_json::Value;

/// Adds up what is there. Whatever cannot be read is left to `ledger check` to name.
pub(super) fn months(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(
        "INSERT INTO account_month
         SELECT account, strftime('%Y-%m', at / 1000, 'unixepoch'), 0, 0, 0, 0, 0, 0, 0, 0,
                sum(CASE WHEN purpose = 'request' AND side < 0 THEN amount ELSE 0 END),
                sum(CASE WHEN purpose = 'request' AND side > 0 THEN amount ELSE 0 END),
                sum(CASE WHEN purpose = 'grant' THEN side * amount ELSE 0 END)
         FROM (SELECT debit AS account, at, purpose, amount, -1 AS side FROM posting JOIN transfer ON posting = seq
               UNION ALL
               SELECT credit, at, purpose, amount, 1 FROM posting JOIN transfer ON posting = seq)
         GROUP BY 1, 2",
    )?;
    let mut select = db.prepare("SELECT account, envelope FROM receipt")?;
    let mut host = db.prepare("SELECT account FROM node WHERE key = ?1")?;
    let mut add = db.prepare(
        "INSERT INTO account_month
         VALUES (?1, strftime('%Y-%m', ?2 / 1000, 'unixepoch'), ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 0, 0, 0)
         ON CONFLICT DO UPDATE SET requests = requests + ?3, taken_in = taken_in + ?4, taken_out = taken_out + ?5,
             own_tokens = own_tokens + ?6, given_in = given_in + ?7, given_out = given_out + ?8,
             measured_mj = min(measured_mj + ?9, 9007199254740991), measured_out = measured_out + ?10",
    )?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let consumer: String = row.get(0)?;
        let Some(receipt) = payload(row.get_ref(1)?.as_str()?) else { continue };
        let issued = receipt["issued"].as_i64().unwrap_or(0);
        add.execute(params![consumer, issued, 1, 0, 0, 0, 0, 0, 0, 0])?;
        for (i, segment) in receipt["segments"].as_array().into_iter().flatten().enumerate() {
            let node = segment["node"].as_str().and_then(|it| BASE64URL_NOPAD.decode(it.as_bytes()).ok());
            let Ok(host) = host.query_row([node], |row| row.get::<_, String>(0)) else { continue };
            let tokens = |name: &str| segment["usage"][name].as_i64().unwrap_or(0);
            let (prompt, completion) = (if i == 0 { tokens("prompt") } else { 0 }, tokens("completion"));
            if host == consumer {
                add.execute(params![consumer, issued, 0, 0, 0, prompt + completion, 0, 0, 0, 0])?;
                continue;
            }
            let statement = serde_json::to_string(&segment["statement"]["signed"]).ok();
            let energy =
                statement.and_then(|it| payload(&it)).map(|it| it["energy"].clone()).unwrap_or_default();
            let measured = match energy["label"].as_str() {
                Some("measured") => energy["total_mj"].as_i64().map(|total| total.max(0)),
                _ => None,
            };
            let of_measured = if measured.is_some() { completion } else { 0 };
            add.execute(params![consumer, issued, 0, prompt, completion, 0, 0, 0, 0, 0])?;
            add.execute(params![
                host,
                issued,
                0,
                0,
                0,
                0,
                prompt,
                completion,
                measured.unwrap_or(0),
                of_measured
            ])?;
        }
    }
    Ok(())
}

/// What an envelope carries.
fn payload(envelope: &str) -> Option<Value> {
    let envelope: Value = serde_json::from_str(envelope).ok()?;
    serde_json::from_slice(&BASE64.decode(envelope["payload"].as_str()?.as_bytes()).ok()?).ok()
}
