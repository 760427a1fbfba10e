//! Nodes: how they join with an invite, come back, and learn what was posted while they were away.

use std::collections::HashMap;

use idlewatt_hub_core::ledger::AccountName;
use idlewatt_protocol::handshake::token_is_proven;
use idlewatt_protocol::message::{Challenge, Hello, Posted, Refuse, RefuseCode};
use idlewatt_protocol::{Digest, PublicKey, UnixMillis};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::journal::account_at;
use super::writer::{Job, Writer, now};
use super::{Store, StoreError, node_keys};

/// A posting number past which nothing a node says is believed.
const SANE_SEQ: u64 = 1 << 52;

/// A node that joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its key.
    pub node: PublicKey,
    /// The account that it earns for.
    pub account: AccountName,
    /// The name that its host gave it.
    pub name: Option<String>,
    /// Name and version of its program.
    pub agent: String,
    /// When it joined.
    pub first_seen: UnixMillis,
    /// When it last came or went.
    pub last_seen: UnixMillis,
    /// Sessions so far.
    pub epoch: u64,
    /// Number of its last posting.
    pub posted_seq: u64,
}

/// A node that is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeLogin {
    /// The account that it earns for.
    pub account: AccountName,
    /// The number of this session; the newest wins.
    pub epoch: u64,
}

impl Store {
    /// Lets a node in, whose hello was found signed by its key: one that joined before, or one that proves an invite.
    /// An invite works once, and again for the node that used it.
    ///
    /// # Errors
    /// The refusal to send.
    pub async fn login(&self, challenge: Challenge, hello: Hello) -> Result<NodeLogin, Refuse> {
        let node = hello.node_key;
        match self.run(move |writer| writer.login(&challenge, &hello)).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::error!(%node, %error, "a node could not be let in");
                Err(refuse(RefuseCode::Busy, "The hub cannot write to its disk now. Trying again later."))
            }
        }
    }

    /// Notes that a node's session ended.
    pub fn left(&self, node: PublicKey) {
        // Where the store is closing, the time of its last coming has to do.
        let _ = self.send(Job::Run(Box::new(move |writer| writer.left(&node))));
    }

    /// What a node was to be told after `seq`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn postings_after(
        &self,
        node: PublicKey,
        seq: u64,
        limit: usize,
    ) -> Result<Vec<Posted>, StoreError> {
        self.run(move |writer| postings_after(&writer.db, &node, seq, limit)).await
    }

    /// Every node that ever joined, by name of account. Memory only.
    #[must_use]
    pub fn nodes(&self) -> Vec<Node> {
        let mut nodes: Vec<Node> = self.0.state.nodes().values().cloned().collect();
        nodes.sort_by(|a, b| (&a.account, a.first_seen, a.node).cmp(&(&b.account, b.first_seen, b.node)));
        nodes
    }
}

pub(super) struct KeptInvite {
    pub(super) token_hash: Digest,
    pub(super) account: AccountName,
    pub(super) expires: UnixMillis,
    /// A node's key, or the hash of the key that a browser got for it.
    pub(super) used_by: Option<PublicKey>,
    pub(super) spends: bool,
}

impl Writer {
    fn login(
        &mut self,
        challenge: &Challenge,
        hello: &Hello,
    ) -> Result<Result<NodeLogin, Refuse>, StoreError> {
        let key = hello.node_key;
        let known = self.state.nodes().get(&key).cloned();
        let invite = match &hello.invite {
            Some(proof) => kept_invite(&self.db, &proof.id)?,
            None => None,
        };
        if let Some(invite) = &invite
            && !token_is_proven(challenge, hello, &invite.token_hash)
        {
            return Ok(Err(refuse(
                RefuseCode::BadProof,
                "The invite's token is not the right one: the link was altered. Copy the whole link again, or ask for \
                 a new invite.",
            )));
        }
        let spent = match (&invite, hello.invite.is_some()) {
            (None, false) => Some((
                RefuseCode::UnknownNode,
                "This hub does not know this node. Ask its operator for an invite.",
            )),
            (None, true) => Some((
                RefuseCode::InviteUnknown,
                "This hub did not make this invite, or withdrew it. Ask its operator for a new one.",
            )),
            (Some(invite), _) if invite.used_by.is_some_and(|by| by != key) => Some((
                RefuseCode::InviteUsed,
                "Another node, or a browser, has used this invite; each works once. Ask for a new one.",
            )),
            (Some(invite), _) if invite.used_by.is_none() && invite.expires < now() => Some((
                RefuseCode::InviteExpired,
                "This invite has expired; each works for 24 hours. Ask for a new one.",
            )),
            (Some(_), _) => None,
        };
        // A node that joined before needs no invite; a fresh one moves it to the invite's account.
        let fresh = invite.filter(|invite| spent.is_none() && invite.used_by.is_none());
        let account = match (&known, &fresh, spent) {
            (_, Some(invite), _) => invite.account.clone(),
            (Some(node), None, _) => node.account.clone(),
            (None, None, Some((code, message))) => return Ok(Err(refuse(code, message))),
            // Used by this very node, which is kept in the same transaction: it cannot be unknown.
            (None, None, None) => return Err(StoreError::Unreadable("an invite")),
        };
        let at = now();
        let before = known.as_ref();
        let mut posted_seq = before.map_or(0, |node| node.posted_seq);
        if (posted_seq + 1..SANE_SEQ).contains(&hello.posted_through) {
            // This ledger is older than what the node saw of it: a backup. Go on after the node's number.
            tracing::warn!(node = %key, posted_seq, posted_through = hello.posted_through, "a node knows later postings than this ledger");
            posted_seq = hello.posted_through;
        }
        let node = Node {
            node: key,
            account,
            name: hello.name.as_deref().map(printable),
            agent: printable(&hello.agent),
            first_seen: before.map_or(at, |node| node.first_seen),
            last_seen: at,
            epoch: before.map_or(0, |node| node.epoch) + 1,
            posted_seq,
        };
        let tx = self.db.transaction()?;
        keep_node(&tx, &node)?;
        let mut revoked = Vec::new();
        if let (Some(fresh), Some(proof)) = (&fresh, &hello.invite) {
            tx.execute(
                "UPDATE invite SET used_by = ?2, used = ?3 WHERE id = ?1",
                params![proof.id, key.0, at.0],
            )?;
            tx.execute("UPDATE node SET spends = ?2 WHERE key = ?1", params![key.0, fresh.spends])?;
            // Its keys were of the account, and of the right to spend, that it had before.
            revoked = node_keys::revoke_all(&tx, &key)?;
        }
        tx.commit()?;
        self.state.forget_keys(&revoked);
        let login = NodeLogin { account: node.account.clone(), epoch: node.epoch };
        self.state.nodes_mut().insert(key, node);
        Ok(Ok(login))
    }

    fn left(&mut self, key: &PublicKey) {
        let at = now();
        let kept = self.db.execute("UPDATE node SET last_seen = ?2 WHERE key = ?1", params![key.0, at.0]);
        if let Err(error) = kept {
            tracing::debug!(node = %key, %error, "when a node left was not kept");
        }
        if let Some(node) = self.state.nodes_mut().get_mut(key) {
            node.last_seen = at;
        }
    }
}

/// A node's own words for an operator's terminal: nothing in them steers it.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}

fn refuse(code: RefuseCode, message: &str) -> Refuse {
    Refuse { code, message: message.to_owned() }
}

pub(super) fn kept_invite(db: &Connection, id: &str) -> rusqlite::Result<Option<KeptInvite>> {
    let mut find =
        db.prepare_cached("SELECT token_hash, account, expires, used_by, spends FROM invite WHERE id = ?1")?;
    find.query_row([id], |row| {
        Ok(KeptInvite {
            token_hash: Digest(row.get(0)?),
            account: account_at(row, 1)?,
            expires: UnixMillis(row.get(2)?),
            used_by: row.get::<_, Option<[u8; 32]>>(3)?.map(PublicKey),
            spends: row.get(4)?,
        })
    })
    .optional()
}

fn keep_node(db: &Connection, node: &Node) -> rusqlite::Result<()> {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    db.prepare_cached(
        "INSERT INTO node (key, account, name, agent, first_seen, last_seen, epoch, posted_seq) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO UPDATE SET account = excluded.account, \
         name = excluded.name, agent = excluded.agent, last_seen = excluded.last_seen, epoch = excluded.epoch, \
         posted_seq = excluded.posted_seq",
    )?
    .execute(params![
        node.node.0,
        node.account.as_str(),
        node.name,
        node.agent,
        node.first_seen.0,
        node.last_seen.0,
        number(node.epoch),
        number(node.posted_seq),
    ])?;
    Ok(())
}

/// Every node that ever joined.
pub(super) fn load(db: &Connection) -> rusqlite::Result<HashMap<PublicKey, Node>> {
    let mut select =
        db.prepare("SELECT key, account, name, agent, first_seen, last_seen, epoch, posted_seq FROM node")?;
    let rows = select.query_map([], |row| {
        let number = |column| row.get::<_, i64>(column).map(i64::unsigned_abs);
        let node = Node {
            node: PublicKey(row.get(0)?),
            account: account_at(row, 1)?,
            name: row.get(2)?,
            agent: row.get(3)?,
            first_seen: UnixMillis(row.get(4)?),
            last_seen: UnixMillis(row.get(5)?),
            epoch: number(6)?,
            posted_seq: number(7)?,
        };
        Ok((node.node, node))
    })?;
    rows.collect()
}

fn postings_after(
    db: &Connection,
    node: &PublicKey,
    seq: u64,
    limit: usize,
) -> Result<Vec<Posted>, StoreError> {
    let mut select = db.prepare_cached(
        "SELECT node_posting.seq, envelope FROM node_posting JOIN receipt ON receipt = receipt.seq \
         WHERE node = ?1 AND node_posting.seq > ?2 ORDER BY node_posting.seq LIMIT ?3",
    )?;
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = select.query_map(params![node.0, number(seq), limit], |row| {
        Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get::<_, String>(1)?))
    })?;
    let mut postings = Vec::new();
    for row in rows {
        let (seq, envelope) = row?;
        let (envelope, receipt) = super::settle::kept(&envelope)?;
        postings.extend(Posted::of(seq, node, &receipt, envelope));
    }
    Ok(postings)
}
