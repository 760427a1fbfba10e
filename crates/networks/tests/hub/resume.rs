//! What runs when a connection is lost, and is taken up in the next.

use std::time::Duration;

use idlewatt_networks::NetworkReport;
use idlewatt_protocol::limits::{REPLAY_BYTES, STREAM_WINDOW};
use idlewatt_protocol::message::{HubMessage, NodeMessage, Outcome, ResumeStream, Resumed};
use idlewatt_protocol::receipt::{STATEMENT_TYPE, Statement};
use tokio::sync::mpsc;

use crate::scripted::{Begun, Heard, Hub, Node, Peer, piece, soon, tokens};

async fn answering(hub: &mut Hub, node: &mut Node) -> (Peer, Begun) {
    let (mut peer, hello) = hub.admit().await;
    assert_eq!(hello.resume, None);
    peer.ask(1).await;
    let begun = node.next_begun().await;
    assert!(matches!(peer.said().await, NodeMessage::Head { .. }));
    begun.pieces.send(piece(b"0123456789", 1)).await.unwrap();
    assert_eq!(peer.data().await.offset, 0);
    (peer, begun)
}

fn from(offset: u64) -> Resumed {
    Resumed { stream: 1, has_head: true, offset, credit: offset + STREAM_WINDOW }
}

/// The next frame of the answer, past what is offered and said of the node's state.
async fn next_data(peer: &mut Peer) -> (u64, Vec<u8>) {
    loop {
        match peer.hear().await {
            Heard::Data(frame) => return (frame.offset, frame.payload.to_vec()),
            Heard::Said(NodeMessage::Offer { .. } | NodeMessage::State(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_answer_goes_on_without_a_connection_and_is_taken_up_to_the_byte() {
    let mut hub = Hub::start().await;
    let mut node = Node::start(&hub);
    let (peer, mut begun) = answering(&mut hub, &mut node).await;
    drop(peer);
    for count in 2..=4 {
        soon("room for a piece", begun.pieces.send(piece(b"abcdefghij", count))).await.unwrap();
    }
    // Of the first piece the last four bytes were lost.
    let (mut peer, hello) = hub.take_up(vec![from(6)]).await;
    let resume = hello.resume.unwrap();
    assert_eq!((resume.epoch, resume.streams), (1, vec![ResumeStream { stream: 1, body: 15 }]));
    assert_eq!(next_data(&mut peer).await, (6, b"6789".to_vec()));
    for offset in [10, 20, 30] {
        assert_eq!(next_data(&mut peer).await, (offset, b"abcdefghij".to_vec()));
    }
    assert!(begun.finished.try_recv().is_err(), "it runs");
    drop(std::mem::replace(&mut begun.pieces, mpsc::channel(1).0));
    loop {
        match peer.said().await {
            NodeMessage::End(end) => {
                assert_eq!((end.outcome, end.length, end.usage), (Outcome::Complete, 40, tokens(4)));
                break;
            }
            NodeMessage::Offer { .. } | NodeMessage::State(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_answer_that_ended_meanwhile_is_brought_with_its_end() {
    let mut hub = Hub::start().await;
    let mut node = Node::start(&hub);
    let (peer, begun) = answering(&mut hub, &mut node).await;
    drop(peer);
    soon("room for a piece", begun.pieces.send(piece(b"ab", 2))).await.unwrap();
    drop(begun.pieces);
    let (mut peer, _) = hub.take_up(vec![from(10)]).await;
    assert_eq!(next_data(&mut peer).await, (10, b"ab".to_vec()));
    loop {
        match peer.said().await {
            NodeMessage::End(end) => break assert_eq!((end.length, end.usage), (12, tokens(2))),
            NodeMessage::Offer { .. } | NodeMessage::State(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn without_a_connection_no_more_is_taken_than_is_kept() {
    let mut hub = Hub::start().await;
    let mut node = Node::start(&hub);
    let (peer, begun) = answering(&mut hub, &mut node).await;
    drop(peer);
    let block = vec![b'x'; 64 * 1024];
    let mut taken = 10;
    while let Ok(sent) =
        tokio::time::timeout(Duration::from_millis(500), begun.pieces.send(piece(&block, 2))).await
    {
        sent.unwrap();
        taken += block.len();
        assert!(taken <= REPLAY_BYTES + 4 * block.len(), "it takes without end");
    }
    assert!(taken >= REPLAY_BYTES, "{taken}");
    let (mut peer, _) = hub.take_up(vec![from(10)]).await;
    let mut length = 0;
    while length < STREAM_WINDOW {
        length += next_data(&mut peer).await.1.len() as u64;
    }
    assert_eq!(length, STREAM_WINDOW);
}

#[tokio::test]
async fn a_node_that_stops_without_a_connection_still_states_what_the_hub_had() {
    let mut hub = Hub::start().await;
    let mut node = Node::start(&hub);
    let (mut peer, begun) = answering(&mut hub, &mut node).await;
    begun.pieces.send(piece(b"abcdefghij", 2)).await.unwrap();
    peer.data().await;
    peer.say(&HubMessage::Credit { stream: 1, offset: STREAM_WINDOW + 10 }).await;
    drop(peer);
    node.reported(|it| matches!(it, NetworkReport::Waiting { .. })).await;
    node.stop.cancel();
    assert_eq!(soon("the finish", begun.finished).await.unwrap(), (Some(Outcome::Failed), tokens(1)));
    soon("the end", node.task).await.unwrap();
    let kept = node.host.outbox.lock().unwrap()[0].clone();
    let statement: Statement = kept.read(STATEMENT_TYPE, "a statement").unwrap();
    assert_eq!((statement.length, statement.usage), (10, tokens(1)));
}
