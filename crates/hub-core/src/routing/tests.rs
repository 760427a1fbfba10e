use super::*;
use idlewatt_protocol::message::Endpoint;

pub(super) fn account(name: &str) -> AccountName {
    name.parse().unwrap()
}

pub(super) fn key(n: u8) -> PublicKey {
    PublicKey([n; 32])
}

fn service(model: &str) -> ServiceOffer {
    ServiceOffer {
        service: "s".into(),
        artefact: Artefact {
            model: model.into(),
            quantisation: Some("q4".into()),
            digest: None,
            engine: "e".into(),
            engine_build: None,
        },
        slots: 2,
        context: 1024,
        price: Price(100),
        capabilities: Capabilities { chat: true, ..Capabilities::default() },
        warm: true,
        load_ms: None,
    }
}

const READY: State = State { accepting: true, own: false, free_slots: 8, why: None, until: None };

/// Nodes 1 to `n`, each of its own account, each with one service of two slots.
pub(super) fn router(n: u8) -> Router {
    let mut router = Router::default();
    for i in 1..=n {
        router.join(key(i), account(&format!("host{i}")));
        router.offer(&key(i), vec![service("m")]);
        router.state(&key(i), &READY);
    }
    router
}

pub(super) fn ask<'a>(account: &'a AccountName, model: &'a str) -> Ask<'a> {
    let needs = needs_of(Endpoint::ChatCompletions);
    Ask { account, model, needs, max_price: None, scope: Scope::Circle, tried: &[] }
}

#[test]
fn an_unknown_model_names_its_neighbours() {
    let me = account("me");
    let unknown = router(1).choose(&ask(&me, "mm"), 0);
    assert_eq!(unknown, Err(NoRoute::Unknown { near: vec!["m:q4".into()] }));
}

#[test]
fn a_known_model_without_a_node_is_away_and_not_unknown() {
    let me = account("me");
    let mut gone = router(1);
    gone.leave(&key(1));
    assert!(matches!(gone.choose(&ask(&me, "m"), 0), Err(NoRoute::Away { why: None, .. })));
    let mut paused = router(1);
    paused.state(
        &key(1),
        &State { accepting: false, own: false, free_slots: 0, why: Some(Class::Busy), until: None },
    );
    assert!(matches!(paused.choose(&ask(&me, "m:q4"), 0), Err(NoRoute::Away { why: Some(Class::Busy), .. })));
}

#[test]
fn a_node_that_pauses_for_others_still_answers_its_own_account() {
    let (mine, other) = (account("host1"), account("other"));
    let mut router = router(1);
    let state = State { accepting: false, own: true, free_slots: 2, why: Some(Class::Busy), until: None };
    for after_yield in [false, true] {
        router.state(&key(1), &state);
        if after_yield {
            router.away(&key(1), Class::Busy);
        }
        for (account, answered) in [(&mine, true), (&other, false)] {
            let choice = router.choose(&ask(account, "m"), 0);
            assert_eq!(choice.is_ok(), answered, "{account:?}");
            if let Ok(choice) = choice {
                router.release(&choice, account, None);
            }
        }
    }
    router.away(&key(1), Class::Offline);
    assert!(router.choose(&ask(&mine, "m"), 0).is_err(), "a hub that drains gives it nothing");
}

#[test]
fn slots_are_taken_until_released() {
    let me = account("me");
    let mut router = router(1);
    let first = router.choose(&ask(&me, "m"), 0).unwrap();
    router.choose(&ask(&me, "m"), 0).unwrap();
    assert_eq!(router.choose(&ask(&me, "m"), 0), Err(NoRoute::Busy));
    assert_eq!(router.running_of(&me), 2);
    router.release(&first, &me, None);
    assert!(router.choose(&ask(&me, "m"), 0).is_ok());
}

#[test]
fn a_nodes_own_hint_of_free_slots_is_obeyed() {
    let me = account("me");
    let mut router = router(1);
    router.state(&key(1), &State { free_slots: 1, ..READY });
    router.choose(&ask(&me, "m"), 0).unwrap();
    assert_eq!(router.choose(&ask(&me, "m"), 0), Err(NoRoute::Busy));
}

#[test]
fn an_offer_again_keeps_what_runs() {
    let me = account("me");
    let mut router = router(1);
    let one = router.choose(&ask(&me, "m"), 0).unwrap();
    router.choose(&ask(&me, "m"), 0).unwrap();
    router.offer(&key(1), vec![service("m")]);
    assert_eq!(router.choose(&ask(&me, "m"), 0), Err(NoRoute::Busy));
    router.release(&one, &me, None);
    assert!(router.choose(&ask(&me, "m"), 0).is_ok());
}

#[test]
fn ones_own_node_comes_first_and_needs_no_price_limit() {
    let host = account("host3");
    let mut router = router(5);
    for random in 0..20 {
        let cheap = Ask { max_price: Some(Price(1)), ..ask(&host, "m") };
        let choice = router.choose(&cheap, random << 32 | random).unwrap();
        assert_eq!((choice.node, choice.own), (key(3), true));
        router.release(&choice, &host, None);
    }
}

#[test]
fn the_scope_own_never_leaves_the_account() {
    let me = account("me");
    let own = Ask { scope: Scope::Own, ..ask(&me, "m") };
    assert!(matches!(router(3).choose(&own, 0), Err(NoRoute::Away { .. })));
}

#[test]
fn price_and_capabilities_are_limits_with_their_own_answer() {
    let me = account("me");
    let dear = Ask { max_price: Some(Price(99)), ..ask(&me, "m") };
    assert_eq!(router(2).choose(&dear, 0), Err(NoRoute::TooDear { cheapest: Price(100) }));
    let embed = Ask { needs: needs_of(Endpoint::Embeddings), ..ask(&me, "m") };
    assert_eq!(router(2).choose(&embed, 0), Err(NoRoute::Unsupported("embeddings")));
}

#[test]
fn warm_comes_before_cold_and_the_less_loaded_before_the_loaded() {
    let me = account("me");
    let mut cold = router(3);
    for i in [1, 2] {
        cold.offer(&key(i), vec![ServiceOffer { warm: false, ..service("m") }]);
    }
    assert_eq!(cold.choose(&ask(&me, "m"), 0x0001_0002_0003_0001).unwrap().node, key(3));
    let mut two = router(2);
    let first = two.choose(&ask(&me, "m"), 0).unwrap();
    let second = two.choose(&ask(&me, "m"), 0).unwrap();
    assert_ne!(first.node, second.node);
}

#[test]
fn a_tried_node_is_not_chosen_again() {
    let me = account("me");
    let mut router = router(2);
    let again = Ask { tried: &[key(1)], ..ask(&me, "m") };
    for random in 0..10 {
        let choice = router.choose(&again, random << 32 | random).unwrap();
        assert_eq!(choice.node, key(2));
        router.release(&choice, &me, None);
    }
    let all = Ask { tried: &[key(1), key(2)], ..ask(&me, "m") };
    assert_eq!(router.choose(&all, 0), Err(NoRoute::Tried));
}

#[test]
fn one_artefact_can_be_asked_for_by_its_digest() {
    let me = account("me");
    let mut router = router(2);
    let digest = idlewatt_protocol::Digest([0xab; 32]);
    let exact =
        ServiceOffer { artefact: Artefact { digest: Some(digest), ..service("m").artefact }, ..service("m") };
    router.offer(&key(2), vec![exact]);
    assert_eq!(router.choose(&ask(&me, "m@sha256:abab"), 0).unwrap().node, key(2));
    assert!(matches!(router.choose(&ask(&me, "m@sha256:ffff"), 0), Err(NoRoute::Unknown { .. })));
}

#[test]
fn load_spreads_over_many_nodes() {
    let me = account("me");
    let mut router = router(100);
    let mut seed = 1u64;
    let mut used = std::collections::HashSet::new();
    for _ in 0..100 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        used.insert(router.choose(&ask(&me, "m"), seed).unwrap().node);
    }
    assert!(used.len() > 50, "100 requests went to {} of 100 nodes", used.len());
}
