//! Every parser of this crate that meets the network, on a corpus and what becomes of it. None may panic; what each must
//! hold besides is its test's name.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as tests do")]

mod mutate;

use std::path::Path;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use idlewatt_protocol::frame::Frame;
use idlewatt_protocol::handshake::{NodeSide, hello_is_signed};
use idlewatt_protocol::invite::{Invite, MAX_ADDRESSES, check_hub_url};
use idlewatt_protocol::limits::MAX_FRAME_PAYLOAD;
use idlewatt_protocol::message::{Challenge, Hello, HubMessage, NodeMessage};
use idlewatt_protocol::receipt::{Envelope, sign_batch};
use idlewatt_protocol::sse::Splitter;
use idlewatt_protocol::{Nonce, PublicKey};
use mutate::{corpus, fuzz};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn seeds(folder: &str) -> Vec<Vec<u8>> {
    corpus(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(folder))
}

/// How many of the corpus are what they are to be: a corpus of rubbish finds nothing.
fn good(seeds: &[Vec<u8>], at_least: usize, is_good: impl Fn(&[u8]) -> bool) {
    let count = seeds.iter().filter(|it| is_good(it)).count();
    assert!(count >= at_least, "only {count} of {} files are read at all", seeds.len());
}

#[test]
fn a_frame_that_is_read_is_written_back_as_it_came() {
    let seeds = seeds("frame");
    good(&seeds, 3, |it| Frame::decode(&Bytes::copy_from_slice(it)).is_ok());
    fuzz(&seeds, |input| {
        if let Ok(frame) = Frame::decode(&Bytes::copy_from_slice(input)) {
            assert!(frame.payload.len() <= MAX_FRAME_PAYLOAD);
            assert_eq!(frame.encode(), input);
        }
    });
}

fn comes_back<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(input: &[u8]) -> bool {
    let Ok(message) = serde_json::from_slice::<T>(input) else { return false };
    let text = serde_json::to_string(&message).unwrap();
    assert_eq!(serde_json::from_str::<T>(&text).unwrap(), message, "{text}");
    true
}

#[test]
fn a_control_message_that_is_read_means_the_same_written_anew() {
    let seeds = seeds("control");
    good(&seeds, 12, |it| comes_back::<NodeMessage>(it) || comes_back::<HubMessage>(it));
    fuzz(&seeds, |input| {
        comes_back::<NodeMessage>(input);
        comes_back::<HubMessage>(input);
    });
}

#[test]
fn an_invite_that_is_read_leads_nowhere_without_encryption() {
    let seeds = seeds("invite");
    let read = |it: &[u8]| std::str::from_utf8(it).ok().and_then(|it| it.parse::<Invite>().ok());
    good(&seeds, 4, |it| read(it).is_some());
    fuzz(&seeds, |input| {
        let Some(invite) = read(input) else { return };
        assert!((1..=MAX_ADDRESSES).contains(&invite.hubs.len()));
        assert!(invite.hubs.iter().all(|hub| check_hub_url(hub).is_ok()));
        assert_eq!(invite.to_string().parse(), Ok(invite.clone()));
        assert_eq!(invite.page().unwrap().as_str().parse(), Ok(invite.clone()));
        let other = Invite { token: "another".into(), ..invite.clone() };
        assert_eq!(format!("{invite:?}"), format!("{other:?}"), "its token shows");
    });
}

#[test]
fn a_stream_is_the_same_events_however_the_network_cuts_it() {
    let seeds = seeds("sse");
    let events = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let (mut splitter, mut data, mut raw) = (Splitter::default(), Vec::new(), Vec::new());
        for piece in pieces {
            splitter.push(piece).unwrap();
            while let Some(event) = splitter.next_event() {
                raw.extend_from_slice(&event.raw);
                data.extend(event.data);
            }
        }
        (data, raw)
    };
    good(&seeds, 4, |it| !events(&mut std::iter::once(it)).0.is_empty());
    fuzz(&seeds, |input| {
        let whole = events(&mut std::iter::once(input));
        assert!(input.starts_with(&whole.1), "what comes out is what went in");
        for size in [1, 2, 7] {
            assert_eq!(events(&mut input.chunks(size)).0, whole.0, "pieces of {size}");
        }
    });
}

#[test]
fn a_hello_that_was_touched_proves_nothing() {
    let (hub, node) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
    let challenge = Challenge { nonce: Nonce([3; 32]), versions: vec![1], hub_key: PublicKey::from(&hub) };
    let side = NodeSide {
        key: &node,
        hub_key: PublicKey::from(&hub),
        token: Some("token"),
        agent: "fuzz/1",
        name: Some("attic"),
        posted_through: 7,
        resume: None,
    };
    let hello = side.answer(&challenge, Nonce([4; 32])).unwrap();
    let other = NodeSide { posted_through: 8, ..side }.answer(&challenge, Nonce([5; 32])).unwrap();
    let texts = [&hello, &other].map(|it| serde_json::to_vec(it).unwrap());
    let honest = [hello, other];
    fuzz(&texts, |input| {
        let Ok(read) = serde_json::from_slice::<Hello>(input) else { return };
        if hello_is_signed(&challenge, &read) {
            let without_proof = |it: &Hello| Hello { invite: None, ..it.clone() };
            // What proves the token is not signed but is itself a proof over the same words.
            assert!(honest.iter().any(|it| without_proof(it) == without_proof(&read)), "{read:?}");
        }
    });
}

#[test]
fn an_envelope_that_was_touched_vouches_for_nothing_else() {
    let key = SigningKey::from_bytes(&[1; 32]);
    let payloads: Vec<Vec<u8>> = (0..5).map(|i| format!(r#"{{"request":{i}}}"#).into_bytes()).collect();
    let envelopes = sign_batch(&key, "application/vnd.idlewatt.fuzz", &payloads);
    let texts: Vec<Vec<u8>> = envelopes.iter().map(|it| serde_json::to_vec(it).unwrap()).collect();
    let open = |input: &[u8]| {
        let envelope = serde_json::from_slice::<Envelope>(input).ok()?;
        let opened = envelope.open("application/vnd.idlewatt.fuzz", "a test").ok()?;
        (envelope.keyid == PublicKey::from(&key)).then_some(opened)
    };
    assert!(texts.iter().zip(&payloads).all(|(text, payload)| open(text).as_ref() == Some(payload)));
    fuzz(&texts, |input| assert!(open(input).is_none_or(|payload| payloads.contains(&payload))));
}
