//! The hub client against a scripted hub on loopback.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod resume;
mod scripted;

use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use futures_util::SinkExt as _;
use idlewatt_networks::NetworkReport;
use idlewatt_networks::hub::{JoinError, Stopped, join, proxy_for};
use idlewatt_protocol::frame::Kind;
use idlewatt_protocol::handshake::{hash_token, token_is_proven};
use idlewatt_protocol::invite::Invite;
use idlewatt_protocol::limits::STREAM_WINDOW;
use idlewatt_protocol::message::{
    CancelReason, Challenge, Endpoint, HubMessage, NodeMessage, Outcome, Posted, Refuse, RefuseCode, State,
};
use idlewatt_protocol::receipt::{
    RECEIPT_TYPE, Receipt, STATEMENT_TYPE, Segment, Signed, Statement, commitment, sign_batch,
};
use idlewatt_protocol::{
    Digest, Joined, MicroCredits, Nonce, Price, PublicKey, RequestId, UnixMillis, Usage,
};
use scripted::{Heard, Hub, Node, Peer, artefact, identity, piece, soon, tokens};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

async fn statement_of(peer: &mut Peer) -> Statement {
    match peer.said().await {
        NodeMessage::Statements { statements } => statements[0].read(STATEMENT_TYPE, "a statement").unwrap(),
        other => panic!("{other:?}"),
    }
}

fn posted(seq: u64, stream: u8) -> HubMessage {
    let (hub, node) = (SigningKey::from_bytes(&[1; 32]), PublicKey::from(&SigningKey::from_bytes(&[2; 32])));
    let receipt = Receipt {
        id: RequestId([stream; 16]),
        hub: PublicKey::from(&hub),
        consumer: "c".into(),
        model: "m".into(),
        endpoint: Endpoint::ChatCompletions,
        outcome: Outcome::Complete,
        salt_digest: Digest([0; 32]),
        also_asked: Vec::new(),
        request_commitment: Digest([0; 32]),
        response_commitment: Digest([0; 32]),
        segments: vec![Segment {
            node,
            artefact: artefact(),
            joined: Joined::Single,
            usage: tokens(2),
            earned: MicroCredits(5),
            statement: Signed::Unsigned("node lost".into()),
        }],
        joined: Joined::Single,
        price: Price(1),
        cost: MicroCredits(5),
        fee: MicroCredits(0),
        verification: "declared".into(),
        started: UnixMillis(1),
        issued: UnixMillis(2),
        previous: None,
    };
    let payload = serde_json::to_vec(&receipt).unwrap();
    let envelope = sign_batch(&hub, RECEIPT_TYPE, &[payload]).remove(0);
    HubMessage::Posted(Posted::of(seq, &node, &receipt, envelope).unwrap())
}

#[tokio::test]
async fn an_answer_goes_out_in_order_by_exact_offsets_and_is_stated_and_posted() {
    let mut hub = Hub::start().await;
    let mut node = Node::start(&hub);
    let (mut peer, _) = hub.admit().await;
    peer.ask(1).await;
    let begun = node.next_begun().await;
    assert_eq!((&begun.ask.body[..], begun.ask.network.as_str()), (&br#"{"messages":[]}"#[..], "circle"));
    assert!(matches!(peer.said().await, NodeMessage::Head { stream: 1, status: 200, streaming: true }));
    begun.pieces.send(piece(b"data: a\n\n", 1)).await.unwrap();
    let first = peer.data().await;
    assert_eq!(
        (first.kind, first.stream, first.offset, &first.payload[..]),
        (Kind::Data, 1, 0, &b"data: a\n\n"[..])
    );
    begun.pieces.send(piece(b"data: b\n\n", 2)).await.unwrap();
    assert_eq!(peer.data().await.offset, 9);
    drop(begun.pieces);
    match peer.said().await {
        NodeMessage::End(end) => {
            assert_eq!((end.outcome, end.length, end.usage), (Outcome::Complete, 18, tokens(2)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(begun.finished.await.unwrap(), (None, tokens(2)));
    let statement = statement_of(&mut peer).await;
    assert_eq!((statement.request, statement.hub, statement.length), (RequestId([1; 16]), hub.public(), 18));
    assert_eq!(statement.response_commitment, commitment(&Nonce([5; 32]), b"tt"));
    peer.say(&posted(1, 1)).await;
    assert_eq!(soon("the posting", node.posted.recv()).await.unwrap().seq, 1);
}

#[tokio::test]
async fn a_posting_that_is_not_kept_ends_the_session_and_comes_again_in_the_next() {
    let mut hub = Hub::start().await;
    let mut node = Node::start(&hub);
    let (mut peer, _) = hub.admit().await;
    node.host.full.store(true, std::sync::atomic::Ordering::Relaxed);
    peer.say(&posted(1, 1)).await;
    let (mut peer, hello) = hub.admit().await;
    assert_eq!(hello.posted_through, 0);
    peer.say(&posted(1, 1)).await;
    assert_eq!(soon("the posting", node.posted.recv()).await.unwrap().seq, 1);
}

#[tokio::test]
async fn several_answers_run_at_once_and_a_refusal_is_told() {
    let mut hub = Hub::start().await;
    let mut node = Node::start(&hub);
    let (mut peer, _) = hub.admit().await;
    peer.ask(1).await;
    let one = node.next_begun().await;
    peer.ask(2).await;
    let two = node.next_begun().await;
    for _ in 0..2 {
        assert!(matches!(peer.said().await, NodeMessage::Head { .. }));
    }
    two.pieces.send(piece(b"2", 1)).await.unwrap();
    assert_eq!(peer.data().await.stream, 2, "the first answer does not hold up the second");
    one.pieces.send(piece(b"1", 1)).await.unwrap();
    assert_eq!(peer.data().await.stream, 1);
    *node.host.state.lock().unwrap() =
        State { accepting: false, own: false, free_slots: 0, why: None, until: None };
    node.host.changes.send_modify(|version| *version += 1);
    assert!(matches!(peer.said().await, NodeMessage::State(state) if !state.accepting));
    peer.ask(3).await;
    assert!(matches!(peer.said().await, NodeMessage::Refused { stream: 3, .. }));
}

#[tokio::test]
async fn without_credit_the_node_stops_taking_from_the_answer() {
    let mut hub = Hub::start().await;
    let mut node = Node::start(&hub);
    let (mut peer, _) = hub.admit().await;
    peer.ask(1).await;
    let begun = node.next_begun().await;
    assert!(matches!(peer.said().await, NodeMessage::Head { .. }));
    let block = vec![b'x'; 64 * 1024];
    for at in 0..4_u64 {
        begun.pieces.send(piece(&block, 1)).await.unwrap();
        assert_eq!(peer.data().await.offset, at * 64 * 1024);
    }
    // The channel holds one piece; a second finds room only when the node takes the first.
    begun.pieces.send(piece(&block, 2)).await.unwrap();
    let taken = tokio::time::timeout(Duration::from_millis(300), begun.pieces.reserve()).await;
    assert!(taken.is_err(), "the window is shut and the node still takes pieces");
    peer.say(&HubMessage::Credit { stream: 1, offset: STREAM_WINDOW + 10 }).await;
    let more = peer.data().await;
    assert_eq!((more.offset, more.payload.len()), (STREAM_WINDOW, 10));
    peer.say(&HubMessage::Credit { stream: 1, offset: STREAM_WINDOW + 64 * 1024 }).await;
    assert_eq!(peer.data().await.payload.len(), 64 * 1024 - 10);
}

#[tokio::test]
async fn a_cancel_lets_the_answer_go_and_ends_at_the_delivered_byte() {
    let mut hub = Hub::start().await;
    let mut node = Node::start(&hub);
    let (mut peer, _) = hub.admit().await;
    peer.ask(1).await;
    let begun = node.next_begun().await;
    assert!(matches!(peer.said().await, NodeMessage::Head { .. }));
    for count in 1..=3 {
        begun.pieces.send(piece(b"0123456789", count)).await.unwrap();
        peer.data().await;
    }
    peer.say(&HubMessage::Cancel { stream: 1, delivered: 20, reason: CancelReason::Consumer }).await;
    assert_eq!(soon("the finish", begun.finished).await.unwrap(), (Some(Outcome::Cancelled), tokens(2)));
    assert!(begun.pieces.is_closed(), "the answer is dropped");
    match peer.said().await {
        NodeMessage::End(end) => {
            assert_eq!((end.outcome, end.length, end.usage), (Outcome::Cancelled, 20, tokens(2)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(statement_of(&mut peer).await.length, 20);
}

#[tokio::test]
async fn a_lost_session_comes_back_names_its_last_posting_and_sends_what_is_unsettled() {
    let mut hub = Hub::start().await;
    let mut node = Node::start(&hub);
    let (mut peer, hello) = hub.admit().await;
    assert_eq!(hello.posted_through, 0);
    for stream in [1, 2, 3] {
        peer.ask(stream).await;
    }
    let (mut one, two, three) = (node.next_begun().await, node.next_begun().await, node.next_begun().await);
    for begun in [&one, &two] {
        begun.pieces.send(piece(b"x", 1)).await.unwrap();
    }
    drop(std::mem::replace(&mut one.pieces, tokio::sync::mpsc::channel(1).0));
    drop(two.pieces);
    let mut statements = 0;
    while statements < 2 {
        if let Heard::Said(NodeMessage::Statements { statements: some }) = peer.hear().await {
            statements += some.len();
        }
    }
    peer.say(&posted(1, 1)).await;
    soon("the posting", node.posted.recv()).await.unwrap();
    node.host.outbox.lock().unwrap().remove(0);
    drop(peer);
    let (mut peer, hello) = hub.admit().await;
    assert_eq!(hello.posted_through, 1);
    let (outcome, usage) = soon("the end of what the hub does not take up", three.finished).await.unwrap();
    assert_eq!((outcome, usage), (Some(Outcome::Cancelled), Usage::NONE));
    assert!(hello.invite.is_none());
    assert!(matches!(peer.said().await, NodeMessage::Statements { statements } if statements.len() == 1));
    node.reported(|report| matches!(report, NetworkReport::Waiting { .. })).await;
    node.reported(|report| matches!(report, NetworkReport::Connected { .. })).await;
}

#[tokio::test]
async fn another_hub_at_the_address_is_distrusted_for_good() {
    let mut hub = Hub::start().await;
    let mut node = Node::start_with(PublicKey([9; 32]), vec![hub.url()], None);
    let mut peer = hub.accept().await;
    let challenge = hub.challenge();
    peer.say(&HubMessage::Challenge(challenge)).await;
    peer.gone().await;
    assert_eq!(soon("the end", node.task).await.unwrap(), Stopped::Distrusted);
    node.reports.close();
    let mut last = None;
    while let Some(report) = node.reports.recv().await {
        last = Some(report);
    }
    assert!(matches!(last, Some(NetworkReport::Distrusted { .. })));
}

#[tokio::test]
async fn a_recorded_handshake_played_again_is_distrusted() {
    let mut hub = Hub::start().await;
    let first = Node::start(&hub);
    let mut peer = hub.accept().await;
    let challenge = hub.challenge();
    peer.say(&HubMessage::Challenge(challenge.clone())).await;
    let hello = peer.hello().await;
    let recorded = hub.welcome(&challenge, &hello);
    peer.say(&HubMessage::Welcome(recorded.clone())).await;
    peer.said().await;
    first.stop.cancel();
    peer.gone().await;

    let second = Node::start(&hub);
    let mut peer = hub.accept().await;
    peer.say(&HubMessage::Challenge(challenge)).await;
    peer.hello().await;
    peer.say(&HubMessage::Welcome(recorded)).await;
    assert_eq!(soon("the end", second.task).await.unwrap(), Stopped::Distrusted);
}

#[tokio::test]
async fn a_hub_that_breaks_a_limit_is_left_and_dialled_again() {
    let mut hub = Hub::start().await;
    let mut node = Node::start(&hub);
    for case in 0..3 {
        let (mut peer, _) = hub.admit().await;
        match case {
            0 => peer.socket.send(Message::Binary(vec![1; 300 * 1024].into())).await.unwrap(),
            1 => peer.socket.send(Message::text("{\"type\":\"request\"}")).await.unwrap(),
            // More streams than any session may have; the node may hang up while they are being sent.
            _ => {
                for stream in 0..1100_u32 {
                    let text = format!(
                        r#"{{"type":"request","stream":{stream},"request":"req_{:032x}","service":"m","endpoint":"completions","body_bytes":1,"salt":"{}","max_tokens":1,"price":1,"deadlines":{{"first_token_ms":1,"between_ms":1}}}}"#,
                        stream,
                        "05".repeat(32)
                    );
                    if peer.socket.send(Message::text(text)).await.is_err() {
                        break;
                    }
                }
            }
        }
        peer.gone().await;
        let report = node.reported(|report| matches!(report, NetworkReport::Waiting { .. })).await;
        let NetworkReport::Waiting { why, .. } = report else { unreachable!() };
        assert!(why.starts_with("the hub broke the protocol"), "{case}: {why}");
    }
    assert!(node.begun.try_recv().is_err(), "nothing of it reached the host");
}

#[tokio::test]
async fn a_final_refusal_ends_it_and_a_temporary_one_does_not() {
    let mut hub = Hub::start().await;
    let node = Node::start(&hub);
    for code in [RefuseCode::Busy, RefuseCode::UnknownNode] {
        let mut peer = hub.accept().await;
        let challenge = hub.challenge();
        peer.say(&HubMessage::Challenge(challenge)).await;
        peer.hello().await;
        peer.say(&HubMessage::Refuse(Refuse { code, message: "no".into() })).await;
    }
    assert_eq!(soon("the end", node.task).await.unwrap(), Stopped::Refused);
}

#[tokio::test]
async fn a_hub_that_is_away_is_tried_at_its_other_address() {
    let mut hub = Hub::start().await;
    let closed = Hub::start().await.url();
    let _node = Node::start_with(hub.public(), vec![closed, hub.url()], None);
    hub.admit().await;
}

#[tokio::test]
async fn the_address_that_worked_is_dialled_first_however_the_hub_orders_its_own() {
    let (mut hub, other) = (Hub::start().await, Hub::start().await);
    for told in [vec![hub.url(), other.url()], vec![other.url(), hub.url()]] {
        hub.told = told;
        let mut node = Node::start(&hub);
        for _ in 0..3 {
            // Drops the connection.
            hub.admit().await;
        }
        let connected = node.reported(|it| matches!(it, NetworkReport::Connected { .. })).await;
        let NetworkReport::Connected { urls, .. } = connected else { unreachable!() };
        assert_eq!(urls, [hub.url().to_string(), other.url().to_string()], "so also after a restart");
        assert!(!other.is_dialled().await);
        node.stop.cancel();
        soon("the end", node.task).await.unwrap();
    }
}

#[tokio::test]
async fn an_address_that_the_hub_tells_no_more_is_forgotten_once_another_worked() {
    let (mut hub, old) = (Hub::start().await, Hub::start().await);
    hub.told = vec![hub.url()];
    let _node = Node::start_with(hub.public(), vec![hub.url(), old.url()], None);
    hub.admit().await;
    for _ in 0..3 {
        // It is there, and takes nobody in.
        drop(hub.accept().await);
    }
    assert!(!old.is_dialled().await);
}

#[tokio::test]
async fn an_address_that_worked_is_kept_even_if_the_hub_does_not_tell_it() {
    let (mut hub, behind) = (Hub::start().await, Hub::start().await.url());
    hub.told = vec![behind.clone()];
    let mut node = Node::start(&hub);
    hub.admit().await;
    let connected = node.reported(|it| matches!(it, NetworkReport::Connected { .. })).await;
    let NetworkReport::Connected { urls, .. } = connected else { unreachable!() };
    assert_eq!(urls, [hub.url().to_string(), behind.to_string()]);
}

#[tokio::test]
async fn stopping_ends_answers_as_yielded_and_still_sends_their_statements() {
    let mut hub = Hub::start().await;
    let mut node = Node::start(&hub);
    let (mut peer, _) = hub.admit().await;
    peer.ask(1).await;
    let begun = node.next_begun().await;
    assert!(matches!(peer.said().await, NodeMessage::Head { .. }));
    begun.pieces.send(piece(b"x", 1)).await.unwrap();
    peer.data().await;
    let stopped = Instant::now();
    node.stop.cancel();
    assert!(
        matches!(peer.said().await, NodeMessage::End(end) if end.outcome == Outcome::Yielded && end.length == 1)
    );
    assert!(matches!(peer.said().await, NodeMessage::Yield));
    assert_eq!(statement_of(&mut peer).await.outcome, Outcome::Yielded);
    peer.gone().await;
    assert_eq!(soon("the end", node.task).await.unwrap(), Stopped::Asked);
    assert!(stopped.elapsed() < Duration::from_millis(1500), "it waited although all was said");
}

#[tokio::test]
async fn before_a_sleep_answers_are_handed_back_and_after_it_the_hub_is_dialled_at_once() {
    let mut hub = Hub::start().await;
    let mut node = Node::start(&hub);
    let (mut peer, _) = hub.admit().await;
    peer.ask(1).await;
    let begun = node.next_begun().await;
    assert!(matches!(peer.said().await, NodeMessage::Head { .. }));
    begun.pieces.send(piece(b"x", 1)).await.unwrap();
    peer.data().await;
    node.host.sleep.send_modify(|sleep| sleep.coming = true);
    assert!(matches!(peer.said().await, NodeMessage::End(end) if end.outcome == Outcome::Yielded));
    assert!(matches!(peer.said().await, NodeMessage::Yield));
    assert_eq!(statement_of(&mut peer).await.outcome, Outcome::Yielded);
    peer.gone().await;
    let waits = node.reported(|it| matches!(it, NetworkReport::Waiting { .. })).await;
    assert!(matches!(waits, NetworkReport::Waiting { why, .. } if why == "this machine goes to sleep"));
    // Nobody dials from a machine that is about to sleep.
    assert!(tokio::time::timeout(Duration::from_millis(300), hub.accept()).await.is_err());
    node.host.sleep.send_modify(|sleep| sleep.coming = false);
    hub.admit().await;
}

#[tokio::test]
async fn a_machine_that_wakes_does_not_wait_to_dial_again() {
    let away = Hub::start().await;
    let (key, url) = (away.public(), away.url());
    drop(away);
    let mut node = Node::start_with(key, vec![url], None);
    // Its waits have grown to seconds.
    let mut longest = Duration::ZERO;
    while longest < Duration::from_secs(1) {
        let NetworkReport::Waiting { retry_at, .. } =
            node.reported(|it| matches!(it, NetworkReport::Waiting { .. })).await
        else {
            unreachable!()
        };
        longest = retry_at.saturating_duration_since(Instant::now());
    }
    let woken = Instant::now();
    node.host.sleep.send_modify(|sleep| sleep.woken += 1);
    node.reported(|it| matches!(it, NetworkReport::Connecting)).await;
    assert!(woken.elapsed() < longest, "it waited on: {:?}", woken.elapsed());
}

#[tokio::test]
async fn an_invite_is_proven_and_its_connection_becomes_the_session() {
    let mut hub = Hub::start().await;
    let invite = Invite { hubs: vec![hub.url()], key: hub.public(), token: "tok-en".into() };
    let joining = tokio::spawn(async move { join(&invite, &identity(), None).await });
    let mut peer = hub.accept().await;
    let challenge = hub.challenge();
    peer.say(&HubMessage::Challenge(challenge.clone())).await;
    let hello = peer.hello().await;
    assert!(token_is_proven(&challenge, &hello, &hash_token("tok-en")));
    peer.say(&HubMessage::Welcome(hub.welcome(&challenge, &hello))).await;
    let joined = soon("the join", joining).await.unwrap().unwrap();
    assert_eq!((joined.account.as_str(), joined.hub_name.as_str()), ("anna", "test hub"));
    assert_eq!(joined.urls, [hub.url()]);
    let mut node = Node::start_with(hub.public(), joined.urls.clone(), Some(joined));
    assert!(matches!(peer.said().await, NodeMessage::Offer { .. }));
    assert!(matches!(peer.said().await, NodeMessage::State(_)));
    peer.ask(1).await;
    assert_eq!(node.next_begun().await.ask.network, "circle");
}

#[tokio::test]
async fn a_hub_behind_a_proxy_is_reached_by_a_tunnel_or_not_at_all() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = proxy_for(Some(&format!("http://{}", listener.local_addr().unwrap()))).unwrap();
    let invite = Invite {
        hubs: vec!["https://hub.example".parse().unwrap()],
        key: PublicKey([9; 32]),
        token: "t".into(),
    };
    let joining = tokio::spawn(async move { join(&invite, &identity(), Some(&proxy)).await });
    let (mut stream, _) = soon("a connection", listener.accept()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon("the question", stream.read_u8()).await.unwrap());
    }
    assert!(head.starts_with(b"CONNECT hub.example:443 HTTP/1.1\r\n"));
    stream.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").await.unwrap();
    let failed = soon("the join", joining).await.unwrap().unwrap_err();
    assert_eq!(failed, JoinError::Down("the proxy does not let the connection through".into()));
    assert_eq!(proxy_for(Some("socks5://localhost:1")), None);
}

#[tokio::test]
async fn a_failed_join_says_which_way_it_failed() {
    for (code, wanted) in [
        (RefuseCode::InviteUsed, JoinError::Used),
        (RefuseCode::InviteExpired, JoinError::Expired),
        (RefuseCode::InviteUnknown, JoinError::Foreign),
    ] {
        let mut hub = Hub::start().await;
        let invite = Invite { hubs: vec![hub.url()], key: hub.public(), token: "t".into() };
        let joining = tokio::spawn(async move { join(&invite, &identity(), None).await });
        let mut peer = hub.accept().await;
        let challenge = hub.challenge();
        peer.say(&HubMessage::Challenge(challenge)).await;
        peer.hello().await;
        peer.say(&HubMessage::Refuse(Refuse { code, message: "no".into() })).await;
        assert_eq!(soon("the join", joining).await.unwrap().unwrap_err(), wanted);
    }

    let mut hub = Hub::start().await;
    let invite = Invite { hubs: vec![hub.url()], key: PublicKey([9; 32]), token: "t".into() };
    let joining = tokio::spawn(async move { join(&invite, &identity(), None).await });
    let mut peer = hub.accept().await;
    let challenge: Challenge = hub.challenge();
    peer.say(&HubMessage::Challenge(challenge)).await;
    assert!(matches!(soon("the join", joining).await.unwrap(), Err(JoinError::WrongKey(_))));

    let url = Hub::start().await.url();
    let away = Invite { hubs: vec![url], key: hub.public(), token: "t".into() };
    assert!(matches!(join(&away, &identity(), None).await, Err(JoinError::Down(_))));
}
