//! Requests from their first moment to their posting, and the outbox between the two.

use idlewatt_control::{Moment, MomentKind, Money, RequestDetail, RequestRow, RowOutcome};
use idlewatt_protocol::message::Posted;
use idlewatt_protocol::receipt::{Energy, Envelope};
use idlewatt_protocol::{Artefact, MicroCredits, RequestId, UnixMillis, Usage};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::column::{Json, Text, Word};
use crate::totals::{Change, Sums, unsigned};
use crate::{Cost, Reply, SessionId, Store};

/// A request that was taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Begun {
    /// Its id.
    pub id: RequestId,
    /// Which network it came from.
    pub network: String,
    /// Model as offered.
    pub model: String,
    /// What answers.
    pub artefact: Artefact,
    /// Whether the host's own account asks.
    pub own: bool,
    /// When it came.
    pub received: UnixMillis,
    /// The local date of that moment: `2026-11-21`. It counts for this day, whenever it ends.
    pub day: String,
    /// The stretch of sharing that it falls into.
    pub session: Option<SessionId>,
    /// The one card that it runs on, where that is known.
    pub gpu: Option<String>,
}

/// A request that ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// Its id.
    pub id: RequestId,
    /// How.
    pub outcome: RowOutcome,
    /// When it went to the model server.
    pub started: Option<UnixMillis>,
    /// When the first piece came.
    pub first_token: Option<UnixMillis>,
    /// When it ended.
    pub ended: UnixMillis,
    /// Tokens of the bytes that count.
    pub usage: Usage,
    /// Joules.
    pub energy: Energy,
    /// What [`Energy::total_mj`] cost, where the energy had a price.
    pub cost: Option<Cost>,
}

/// What a network settled for this node since it was first joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Requests.
    pub requests: u64,
    /// Prompt tokens as billed.
    pub tokens_in: u64,
    /// Completion tokens as billed.
    pub tokens_out: u64,
    /// Earned.
    pub earned: MicroCredits,
}

impl Store {
    /// Keeps that a request was taken. A second call with the same id changes nothing.
    pub fn begin(&self, begun: Begun) -> Reply<()> {
        self.note(move |connection| {
            let new = connection
                .prepare_cached(
                    "INSERT OR IGNORE INTO requests
                        (id, network, model, artefact, own, day, session, outcome, received, gpu)
                     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                )?
                .execute(params![
                    Text(begun.id),
                    begun.network,
                    begun.model,
                    Json(begun.artefact),
                    begun.own,
                    begun.day,
                    begun.session.map(|session| session.0),
                    Word(RowOutcome::Running),
                    begun.received.0,
                    begun.gpu,
                ])?;
            let sums = Sums {
                network: begun.network,
                day: begun.day,
                session: begun.session.map(|session| session.0),
                model: Some((begun.model, begun.gpu)),
            };
            sums.bump(connection, &Change { requests: i64::try_from(new).unwrap_or(0), ..Change::NONE })
        })
    }

    /// Keeps how a running request ended. What its network has settled already is not touched.
    pub fn end(&self, ended: Ended) -> Reply<()> {
        self.note(move |connection| {
            let Some(before) = counted(connection, ended.id)?.filter(|it| it.running) else { return Ok(()) };
            count(connection, ended.id, None, ended.usage)?;
            let tokens_out: i64 = connection
                .prepare_cached(
                    "UPDATE requests SET outcome = ?2, started = ?3, first_token = ?4, ended = ?5, energy = ?6,
                        cost = ?7, currency = ?8
                     WHERE id = ?1 RETURNING tokens_out",
                )?
                .query_row(
                    params![
                        Text(ended.id),
                        Word(ended.outcome),
                        ended.started.map(|at| at.0),
                        ended.first_token.map(|at| at.0),
                        ended.ended.0,
                        Json(ended.energy),
                        ended.cost.as_ref().map(|cost| cost.nanos),
                        ended.cost.as_ref().map(|cost| &cost.currency),
                    ],
                    |row| row.get(0),
                )?;
            let Some(energy) = Change::answered(&ended.energy, ended.cost) else { return Ok(()) };
            before.sums.bump(connection, &Change { metered: tokens_out, ..Change::NONE })?;
            before.sums.bump_model(connection, &energy)
        })
    }

    /// Keeps signed statements until their network settles them. Answers only once the disk has them: acknowledged
    /// means kept.
    pub fn keep_statements(
        &self,
        network: &str,
        statements: Vec<(RequestId, Envelope)>,
        signed: UnixMillis,
    ) -> Reply<()> {
        let network = network.to_owned();
        self.keep(move |connection| {
            let mut keep = connection.prepare_cached(
                "INSERT OR IGNORE INTO outbox (request, network, envelope) VALUES (?, ?, ?)",
            )?;
            let mut mark =
                connection.prepare_cached("UPDATE requests SET signed = ?2, segments = 1 WHERE id = ?1")?;
            for (request, envelope) in statements {
                keep.execute(params![Text(request), network, Json(envelope)])?;
                mark.execute(params![Text(request), signed.0])?;
            }
            Ok(())
        })
    }

    /// Statements that a network has not settled, oldest first, at most `limit`.
    pub fn unsettled(&self, network: &str, limit: usize) -> Reply<Vec<Envelope>> {
        let network = network.to_owned();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.read(move |connection| {
            let mut query = connection
                .prepare_cached("SELECT envelope FROM outbox WHERE network = ? ORDER BY position LIMIT ?")?;
            let rows =
                query.query_map(params![network, limit], |row| row.get(0).map(|Json(envelope)| envelope))?;
            rows.collect()
        })
    }

    /// How many statements a network has not settled.
    pub fn unsettled_count(&self, network: &str) -> Reply<u32> {
        let network = network.to_owned();
        self.read(move |connection| {
            connection
                .prepare_cached("SELECT count(*) FROM outbox WHERE network = ?")?
                .query_row([network], |row| row.get(0))
        })
    }

    /// A network settled a request: keeps the posting, takes over its counts, forgets the statement. The same posting
    /// again changes nothing. `day` is the local date of `at`, for a request that this node no longer knows.
    pub fn posted(&self, network: &str, posted: Posted, at: UnixMillis, day: &str) -> Reply<()> {
        let (network, day) = (network.to_owned(), day.to_owned());
        self.keep(move |connection| settle(connection, &network, &posted, at, &day))
    }

    /// A network does not know a request, or nothing of it was delivered: forgets the statement; the request earned
    /// nothing and its tokens do not count.
    pub fn void(&self, network: &str, request: RequestId, at: UnixMillis) -> Reply<()> {
        let network = network.to_owned();
        self.keep(move |connection| {
            forget_statement(connection, &network, request)?;
            let voided = connection
                .prepare_cached(
                    "UPDATE requests SET posted = ?3 WHERE id = ?1 AND network = ?2 AND posted IS NULL",
                )?
                .execute(params![Text(request), network, at.0])?;
            if voided == 0 {
                return Ok(());
            }
            count(connection, request, Some(MicroCredits::ZERO), Usage::NONE)
        })
    }

    /// The last posting of a network that is kept; 0 before the first.
    pub fn posted_through(&self, network: &str) -> Reply<u64> {
        let network = network.to_owned();
        self.read(move |connection| {
            connection
                .prepare_cached("SELECT coalesce(max(seq), 0) FROM postings WHERE network = ?")?
                .query_row([network], |row| row.get::<_, i64>(0))
                .map(|seq| u64::try_from(seq).unwrap_or(0))
        })
    }

    /// The receipt of a request, once a network settled it.
    pub fn receipt(&self, request: RequestId) -> Reply<Option<Envelope>> {
        self.read(move |connection| {
            connection
                .prepare_cached("SELECT receipt FROM postings WHERE request = ?")?
                .query_row([Text(request)], |row| row.get(0).map(|Json(envelope)| envelope))
                .optional()
        })
    }

    /// What a network settled in all. It equals the network's own books.
    pub fn settled(&self, network: &str) -> Reply<Settled> {
        let network = network.to_owned();
        self.read(move |connection| {
            connection
                .prepare_cached(
                    "SELECT count(*) AS requests, coalesce(sum(tokens_in), 0) AS tokens_in,
                            coalesce(sum(tokens_out), 0) AS tokens_out, coalesce(sum(earned), 0) AS earned
                     FROM postings WHERE network = ?",
                )?
                .query_row([network], |row| {
                    Ok(Settled {
                        requests: unsigned(row, "requests")?,
                        tokens_in: unsigned(row, "tokens_in")?,
                        tokens_out: unsigned(row, "tokens_out")?,
                        earned: MicroCredits(row.get("earned")?),
                    })
                })
        })
    }

    /// Requests, newest first, those that came before `before`. The whole time of a running one counts up to `now`. What
    /// they earned in the host's currency is the caller's to fill in.
    pub fn requests(
        &self,
        limit: u32,
        before: Option<UnixMillis>,
        now: UnixMillis,
    ) -> Reply<Vec<RequestRow>> {
        self.read(move |connection| {
            let mut query = connection.prepare_cached(
                "SELECT * FROM requests WHERE received < ? ORDER BY received DESC, id DESC LIMIT ?",
            )?;
            let before = before.map_or(i64::MAX, |at| at.0);
            let rows = query.query_map(params![before, limit], |found| row(found, now))?;
            rows.collect()
        })
    }

    /// One request with what happened when, and the readings of the time it ran.
    pub fn request(&self, id: RequestId, now: UnixMillis) -> Reply<Option<RequestDetail>> {
        self.read(move |connection| {
            let found = connection
                .prepare_cached("SELECT * FROM requests WHERE id = ?")?
                .query_row([Text(id)], |found| Ok((row(found, now)?, timeline(found)?, until(found, now)?)))
                .optional()?;
            let Some((row, timeline, until)) = found else { return Ok(None) };
            let samples = crate::samples::thinned(connection, row.started.0, until.0)?;
            Ok(Some(RequestDetail { row, timeline, samples }))
        })
    }
}

/// Requests that ran when the last process died.
pub(crate) fn close_lost(connection: &Connection) -> rusqlite::Result<()> {
    let lost = connection.execute(
        "UPDATE requests SET outcome = ?, ended = coalesce(first_token, started, received) WHERE outcome = ?",
        params![Word(RowOutcome::Lost), Word(RowOutcome::Running)],
    )?;
    if lost > 0 {
        tracing::warn!(lost, "requests were running when the last process ended");
    }
    Ok(())
}

/// One network has no say over what another owes.
fn forget_statement(connection: &Connection, network: &str, request: RequestId) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM outbox WHERE request = ? AND network = ?")?
        .execute(params![Text(request), network])
        .map(|_| ())
}

fn settle(
    connection: &Connection,
    network: &str,
    posted: &Posted,
    at: UnixMillis,
    day: &str,
) -> rusqlite::Result<()> {
    forget_statement(connection, network, posted.request)?;
    let new = connection
        .prepare_cached("INSERT OR IGNORE INTO postings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")?
        .execute(params![
            network,
            i64::try_from(posted.seq).unwrap_or(i64::MAX),
            Text(posted.request),
            at.0,
            posted.usage.prompt,
            posted.usage.completion,
            posted.earned.0,
            posted.signed,
            Json(&posted.receipt),
        ])?;
    if new == 0 {
        return Ok(());
    }
    let known = connection
        .prepare_cached("UPDATE requests SET posted = ?3, receipt = ?4 WHERE id = ?1 AND network = ?2")?
        .execute(params![Text(posted.request), network, at.0, posted.receipt.payload_digest().map(Text)])?;
    if known > 0 {
        return count(connection, posted.request, Some(posted.earned), posted.usage);
    }
    let change = Change {
        tokens_in: posted.usage.prompt.into(),
        tokens_out: posted.usage.completion.into(),
        earned: posted.earned.0,
        ..Change::NONE
    };
    let (network, day) = (network.to_owned(), day.to_owned());
    Sums { network, day, session: None, model: None }.bump(connection, &change)
}

/// A request's sums and its counts so far.
struct Counted {
    sums: Sums,
    tokens_in: i64,
    tokens_out: i64,
    running: bool,
    posted: bool,
    /// Whether its energy is in the sums of its model.
    metered: bool,
}

fn counted(connection: &Connection, id: RequestId) -> rusqlite::Result<Option<Counted>> {
    connection
        .prepare_cached(
            "SELECT network, day, session, model, gpu, tokens_in, tokens_out, posted IS NOT NULL AS posted,
                    outcome, energy FROM requests WHERE id = ?",
        )?
        .query_row([Text(id)], |row| {
            let Json(energy): Json<Energy> = row.get("energy")?;
            let sums = Sums {
                network: row.get("network")?,
                day: row.get("day")?,
                session: row.get("session")?,
                model: Some((row.get("model")?, row.get("gpu")?)),
            };
            Ok(Counted {
                sums,
                tokens_in: row.get("tokens_in")?,
                tokens_out: row.get("tokens_out")?,
                running: row.get::<_, Word<RowOutcome>>("outcome")?.0 == RowOutcome::Running,
                posted: row.get("posted")?,
                metered: energy.total_mj.is_some(),
            })
        })
        .optional()
}

/// Sets a request's counts, and what it earned once settled, and moves every sum by the difference. The node's own
/// counts never replace settled ones.
fn count(
    connection: &Connection,
    id: RequestId,
    earned: Option<MicroCredits>,
    usage: Usage,
) -> rusqlite::Result<()> {
    let Some(before) = counted(connection, id)? else { return Ok(()) };
    if earned.is_none() && before.posted {
        return Ok(());
    }
    let earned = earned.map(|earned| earned.0);
    connection
        .prepare_cached("UPDATE requests SET tokens_in = ?2, tokens_out = ?3, earned = ?4 WHERE id = ?1")?
        .execute(params![Text(id), usage.prompt, usage.completion, earned])?;
    let tokens_out = i64::from(usage.completion) - before.tokens_out;
    let change = Change {
        tokens_in: i64::from(usage.prompt) - before.tokens_in,
        tokens_out,
        metered: if before.metered { tokens_out } else { 0 },
        earned: earned.unwrap_or(0),
        ..Change::NONE
    };
    before.sums.bump(connection, &change)
}

fn moment(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<UnixMillis>> {
    row.get::<_, Option<i64>>(column).map(|at| at.map(UnixMillis))
}

fn until(row: &Row<'_>, now: UnixMillis) -> rusqlite::Result<UnixMillis> {
    Ok(moment(row, "ended")?.unwrap_or(now))
}

fn row(row: &Row<'_>, now: UnixMillis) -> rusqlite::Result<RequestRow> {
    let received = UnixMillis(row.get("received")?);
    let since_received = |at: UnixMillis| u32::try_from((at - received).0.max(0)).unwrap_or(u32::MAX);
    Ok(RequestRow {
        id: row.get("id").map(|Text(id)| id)?,
        network: row.get("network")?,
        model: row.get("model")?,
        artefact: row.get("artefact").map(|Json(artefact)| artefact)?,
        started: received,
        ttft_ms: moment(row, "first_token")?.map(since_received),
        duration_ms: since_received(until(row, now)?),
        tokens_in: row.get("tokens_in")?,
        tokens_out: row.get("tokens_out")?,
        outcome: row.get("outcome").map(|Word(outcome)| outcome)?,
        own: row.get("own")?,
        earned_ucr: row.get::<_, Option<i64>>("earned")?.map(MicroCredits),
        energy: row.get("energy").map(|Json(energy)| energy)?,
        cost: cost(row)?,
        gross: None,
        net: None,
        segments: row.get("segments")?,
        receipt: row.get("receipt")?,
    })
}

fn cost(row: &Row<'_>) -> rusqlite::Result<Option<Money>> {
    let cost: Option<i64> = row.get("cost")?;
    let currency: Option<String> = row.get("currency")?;
    Ok(cost.zip(currency).map(|(nanos, currency)| Cost { nanos, currency }.money()))
}

fn timeline(row: &Row<'_>) -> rusqlite::Result<Vec<Moment>> {
    let kinds = [
        ("received", MomentKind::Received),
        ("started", MomentKind::Started),
        ("first_token", MomentKind::FirstToken),
        ("ended", MomentKind::Ended),
        ("signed", MomentKind::Signed),
        ("posted", MomentKind::Posted),
    ];
    let mut moments = Vec::with_capacity(kinds.len());
    for (column, kind) in kinds {
        if let Some(at) = moment(row, column)? {
            moments.push(Moment { at, kind });
        }
    }
    Ok(moments)
}
