use proptest::prelude::*;

use super::*;
use crate::circles::Refusals;
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
        scope: Scope::Circle,
        region: None,
    }
}

pub(super) const READY: State = State { accepting: true, own: false, free_slots: 8, why: None, until: None };

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

pub(super) fn wanted(model: &str) -> Wanted {
    Wanted { model: model.into(), needs: needs_of(Endpoint::ChatCompletions), ..Wanted::default() }
}

/// Asks, with nothing tried.
fn choose(
    router: &mut Router,
    account: &AccountName,
    wanted: &Wanted,
    random: u64,
) -> Result<Choice, NoRoute> {
    router.choose(&Ask { account, wanted, tried: &[] }, random)
}

fn ask(router: &mut Router, account: &AccountName, model: &str, random: u64) -> Result<Choice, NoRoute> {
    choose(router, account, &wanted(model), random)
}

#[test]
fn an_unknown_model_names_its_neighbours() {
    let me = account("me");
    let unknown = ask(&mut router(1), &me, "mm", 0);
    assert_eq!(unknown, Err(NoRoute::Unknown { near: vec!["m:q4".into()] }));
}

#[test]
fn a_known_model_without_a_node_is_away_and_not_unknown() {
    let me = account("me");
    let mut gone = router(1);
    gone.leave(&key(1));
    assert!(matches!(ask(&mut gone, &me, "m", 0), Err(NoRoute::Away { why: None, .. })));
    let mut paused = router(1);
    paused.state(
        &key(1),
        &State { accepting: false, own: false, free_slots: 0, why: Some(Class::Busy), until: None },
    );
    assert!(matches!(ask(&mut paused, &me, "m:q4", 0), Err(NoRoute::Away { why: Some(Class::Busy), .. })));
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
            let choice = ask(&mut router, account, "m", 0);
            assert_eq!(choice.is_ok(), answered, "{account:?}");
            if let Ok(choice) = choice {
                router.release(&choice, None);
            }
        }
    }
    router.away(&key(1), Class::Offline);
    assert!(ask(&mut router, &mine, "m", 0).is_err(), "a hub that drains gives it nothing");
}

#[test]
fn slots_are_taken_until_released() {
    let me = account("me");
    let mut router = router(1);
    let first = ask(&mut router, &me, "m", 0).unwrap();
    ask(&mut router, &me, "m", 0).unwrap();
    assert_eq!(ask(&mut router, &me, "m", 0), Err(NoRoute::Busy));
    router.release(&first, None);
    assert!(ask(&mut router, &me, "m", 0).is_ok());
}

#[test]
fn a_nodes_own_hint_of_free_slots_is_obeyed() {
    let me = account("me");
    let mut router = router(1);
    router.state(&key(1), &State { free_slots: 1, ..READY });
    ask(&mut router, &me, "m", 0).unwrap();
    assert_eq!(ask(&mut router, &me, "m", 0), Err(NoRoute::Busy));
}

#[test]
fn an_offer_again_keeps_what_runs() {
    let me = account("me");
    let mut router = router(1);
    let one = ask(&mut router, &me, "m", 0).unwrap();
    ask(&mut router, &me, "m", 0).unwrap();
    router.offer(&key(1), vec![service("m")]);
    assert_eq!(ask(&mut router, &me, "m", 0), Err(NoRoute::Busy));
    router.release(&one, None);
    assert!(ask(&mut router, &me, "m", 0).is_ok());
}

#[test]
fn ones_own_node_comes_first_and_needs_no_price_limit() {
    let host = account("host3");
    let mut router = router(5);
    for random in 0..20 {
        let cheap = Wanted { max_price: Some(Price(1)), ..wanted("m") };
        let choice = choose(&mut router, &host, &cheap, random << 32 | random).unwrap();
        assert_eq!((choice.node, choice.own), (key(3), true));
        router.release(&choice, None);
    }
}

#[test]
fn the_scope_own_never_leaves_the_account() {
    let me = account("me");
    let own = Wanted { scope: Scope::Own, ..wanted("m") };
    let none = choose(&mut router(3), &me, &own, 0);
    assert_eq!(none, Err(NoRoute::OutOfScope { needs: Scope::Circle }));
}

#[test]
fn price_and_capabilities_are_limits_with_their_own_answer() {
    let me = account("me");
    let dear = Wanted { max_price: Some(Price(99)), ..wanted("m") };
    let too_dear = NoRoute::TooDear { cheapest: Price(100) };
    assert_eq!(choose(&mut router(2), &me, &dear, 0), Err(too_dear));
    let embed = Wanted { needs: needs_of(Endpoint::Embeddings), ..wanted("m") };
    assert_eq!(choose(&mut router(2), &me, &embed, 0), Err(NoRoute::Unsupported("embeddings")));
}

#[test]
fn warm_comes_before_cold_and_the_less_loaded_before_the_loaded() {
    let me = account("me");
    let mut cold = router(3);
    for i in [1, 2] {
        cold.offer(&key(i), vec![ServiceOffer { warm: false, ..service("m") }]);
    }
    assert_eq!(ask(&mut cold, &me, "m", 0x0001_0002_0003_0001).unwrap().node, key(3));
    let mut two = router(2);
    let first = ask(&mut two, &me, "m", 0).unwrap();
    let second = ask(&mut two, &me, "m", 0).unwrap();
    assert_ne!(first.node, second.node);
}

#[test]
fn a_tried_node_is_not_chosen_again() {
    let me = account("me");
    let mut router = router(2);
    let wanted = wanted("m");
    let again = Ask { account: &me, wanted: &wanted, tried: &[key(1)] };
    for random in 0..10 {
        let choice = router.choose(&again, random << 32 | random).unwrap();
        assert_eq!(choice.node, key(2));
        router.release(&choice, None);
    }
    let all = Ask { tried: &[key(1), key(2)], ..again };
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
    assert_eq!(ask(&mut router, &me, "m@sha256:abab", 0).unwrap().node, key(2));
    assert!(matches!(ask(&mut router, &me, "m@sha256:ffff", 0), Err(NoRoute::Unknown { .. })));
}

#[test]
fn load_spreads_over_many_nodes() {
    let me = account("me");
    let mut router = router(100);
    let mut seed = 1u64;
    let mut used = std::collections::HashSet::new();
    for _ in 0..100 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        used.insert(ask(&mut router, &me, "m", seed).unwrap().node);
    }
    assert!(used.len() > 50, "100 requests went to {} of 100 nodes", used.len());
}

fn know(router: &mut Router, change: impl FnOnce(&mut Directory)) {
    let mut directory = Directory::clone(&router.directory);
    change(&mut directory);
    router.know(Arc::new(directory));
}

fn put(router: &mut Router, host: &str, group: Option<&str>) {
    know(router, |directory| directory.place(account(host), group.map(account)));
}

/// Two groups, a host who offers to strangers, and one whose hub's members he takes for friends.
fn society() -> Router {
    let mut router = router(4);
    for (host, group) in [("host1", "red"), ("host2", "blue"), ("host3", "green"), ("me", "red")] {
        put(&mut router, host, Some(group));
    }
    router.offer(&key(3), vec![ServiceOffer { scope: Scope::Public, ..service("m") }]);
    router
}

fn all_who_answer(router: &mut Router, who: &str, scope: Scope) -> Vec<PublicKey> {
    let (me, wanted) = (account(who), Wanted { scope, ..wanted("m") });
    let mut nodes: Vec<_> =
        std::iter::from_fn(|| choose(router, &me, &wanted, 0).ok()).map(|choice| choice.node).collect();
    nodes.dedup();
    nodes
}

#[test]
fn a_prompt_goes_no_further_than_its_scope_and_nearer_nodes_come_first() {
    let nobody: [PublicKey; 0] = [];
    assert_eq!(all_who_answer(&mut society(), "me", Scope::Own), nobody);
    assert_eq!(all_who_answer(&mut society(), "me", Scope::Circle), [key(1), key(4)]);
    assert_eq!(all_who_answer(&mut society(), "me", Scope::Public), [key(1), key(4), key(3)]);
    assert_eq!(all_who_answer(&mut society(), "host1", Scope::Own), [key(1)]);
    assert_eq!(all_who_answer(&mut society(), "host2", Scope::Public), [key(2), key(4), key(3)]);
    let mut home = society();
    home.offer(&key(1), vec![ServiceOffer { scope: Scope::Own, ..service("m") }]);
    assert_eq!(all_who_answer(&mut home, "me", Scope::Circle), [key(4)], "the first is for its host alone");
    assert_eq!(all_who_answer(&mut home, "host1", Scope::Own), [key(1)]);
}

#[test]
fn on_an_open_hub_who_is_in_no_group_is_a_stranger() {
    let mut hub = society();
    hub.know(Arc::new(Directory::new(true)));
    assert_eq!(all_who_answer(&mut hub, "somebody", Scope::Circle), []);
    assert_eq!(all_who_answer(&mut hub, "somebody", Scope::Public), [key(3)]);
}

#[test]
fn groups_and_refusals_count_at_once() {
    let mut hub = society();
    put(&mut hub, "me", Some("blue"));
    assert_eq!(all_who_answer(&mut hub, "me", Scope::Circle), [key(2), key(4)]);
    let mut hub = society();
    let refuses = Refusals { accounts: [account("me")].into(), ..Refusals::default() };
    know(&mut hub, |directory| directory.refuse(account("host1"), refuses));
    assert_eq!(all_who_answer(&mut hub, "me", Scope::Public), [key(4), key(3)]);
}

#[test]
fn names_of_other_circles_models_are_not_told() {
    let mut hub = society();
    hub.offer(&key(2), vec![service("secret")]);
    let near = |hub: &mut Router, who: &str| match ask(hub, &account(who), "secre", 0) {
        Err(NoRoute::Unknown { near }) => near,
        other => panic!("{other:?}"),
    };
    assert_eq!(near(&mut hub, "me"), Vec::<String>::new());
    put(&mut hub, "me", Some("blue"));
    assert_eq!(near(&mut hub, "me"), ["secret:q4"]);
    let seen =
        |who| hub.models(Some(&account(who))).into_iter().map(|it| (it.base, it.scope)).collect::<Vec<_>>();
    assert_eq!(seen("host2"), [("m".to_owned(), Scope::Circle), ("secret".to_owned(), Scope::Own)]);
    assert_eq!(seen("host1"), [("m".to_owned(), Scope::Own)]);
}

#[test]
fn whoever_says_nobody_sees_what_everybody_may() {
    let mut hub = society();
    for (host, scope, model) in [
        (1, Scope::Own, "m"),
        (2, Scope::Circle, "secret"),
        (3, Scope::Public, "open"),
        (4, Scope::Own, "mine"),
    ] {
        hub.offer(&key(host), vec![ServiceOffer { scope, ..service(model) }]);
    }
    let seen = |hub: &Router| hub.models(None).into_iter().map(|it| it.base).collect::<Vec<_>>();
    assert_eq!(seen(&hub), ["open"]);
    hub.offer(&key(4), vec![service("everyones")]);
    assert_eq!(seen(&hub), ["everyones", "open"], "host4 is in no group");
    hub.know(Arc::new(Directory::new(true)));
    assert_eq!(seen(&hub), ["open"], "on an open hub whoever looks is a stranger");
}

#[test]
fn what_is_away_is_away_for_those_to_whom_it_was_offered() {
    let mut hub = society();
    hub.offer(&key(2), vec![service("secret")]);
    hub.offer(&key(3), vec![ServiceOffer { scope: Scope::Public, ..service("open") }]);
    hub.offer(&key(4), vec![ServiceOffer { scope: Scope::Own, ..service("mine") }]);
    (2..=4).for_each(|host| hub.leave(&key(host)));
    let is_away = |hub: &mut Router, who: &str, model: &str| match ask(hub, &account(who), model, 0) {
        Err(NoRoute::Away { .. }) => true,
        Err(NoRoute::Unknown { .. }) => false,
        other => panic!("{other:?}"),
    };
    put(&mut hub, "friend", Some("blue"));
    for (who, model, away) in [
        ("me", "secret", false),
        ("friend", "secret", true),
        ("host2", "secret", true),
        ("me", "open", true),
        ("me", "mine", false),
        ("host4", "mine", true),
    ] {
        assert_eq!(is_away(&mut hub, who, model), away, "{who} asks for {model}");
    }
}

#[test]
fn a_region_is_a_limit_with_its_own_answer() {
    let (me, region) = (account("me"), |text: &str| text.parse::<Region>().ok());
    let mut router = router(2);
    router.offer(&key(2), vec![ServiceOffer { region: region("eu-north"), ..service("m") }]);
    for (asked, answer) in [("eu", Ok(key(2))), ("eu-south", Err(NoRoute::Elsewhere))] {
        let wanted = Wanted { region: region(asked), ..wanted("m") };
        let choice = choose(&mut router, &me, &wanted, 0);
        assert_eq!(choice.map(|it| it.node), answer, "{asked}");
    }
}

#[test]
fn a_conversation_goes_back_to_the_node_that_has_it_cached() {
    let me = account("me");
    let mut router = router(200);
    let mut marks = Fingerprints::new(&std::hash::RandomState::new(), ["me", "m"]);
    marks.part(&"x".repeat(300));
    let again = Wanted { prefix: marks.finish(), ..wanted("m") };
    let first = choose(&mut router, &me, &again, 7 << 32).unwrap();
    router.remember(&first, &again.prefix);
    router.release(&first, None);
    for random in 0..50u64 {
        let choice = choose(&mut router, &me, &again, random.wrapping_mul(0x9e37_79b9_7f4a_7c15)).unwrap();
        assert_eq!(choice.node, first.node);
        router.release(&choice, None);
    }
    router.state(&first.node, &State { accepting: false, ..READY });
    assert_ne!(choose(&mut router, &me, &again, 0).unwrap().node, first.node, "nobody waits for a cache");
}

#[test]
fn of_two_the_quicker_is_chosen_and_of_the_cold_the_one_that_loads_sooner() {
    let me = account("me");
    let mut two = router(2);
    for (node, ms) in [(1, 2000), (2, 20)] {
        let choice = Choice { node: key(node), offer: Arc::new(service("m")), own: false };
        two.release(&choice, Some((Duration::from_millis(ms), 100)));
    }
    for random in 0..8u64 {
        let choice = ask(&mut two, &me, "m", random << 32 | random).unwrap();
        assert_eq!(choice.node, key(2));
        two.release(&choice, None);
    }
    for (node, load_ms) in [(1, Some(1000)), (2, None)] {
        two.offer(&key(node), vec![ServiceOffer { warm: false, load_ms, ..service("m") }]);
    }
    assert_eq!(ask(&mut two, &me, "m", 0).unwrap().node, key(1));
}

#[derive(Clone, Debug)]
enum Event {
    Join(u8),
    Leave(u8),
    Offer(u8, Scope, Vec<bool>),
    State(u8, bool, u32),
    Full(u8),
    Ask(u8, Scope),
    Done(u8),
}

fn event() -> impl Strategy<Value = Event> {
    let scope = || prop_oneof![Just(Scope::Own), Just(Scope::Circle), Just(Scope::Public)];
    prop_oneof![
        (1..8u8).prop_map(Event::Join),
        (1..8u8).prop_map(Event::Leave),
        (1..8u8, scope(), prop::collection::vec(any::<bool>(), 0..3))
            .prop_map(|(n, s, w)| Event::Offer(n, s, w)),
        (1..8u8, any::<bool>(), 0..4u32).prop_map(|(n, accepting, free)| Event::State(n, accepting, free)),
        (1..8u8).prop_map(Event::Full),
        (1..8u8, scope()).prop_map(|(n, s)| Event::Ask(n, s)),
        any::<u8>().prop_map(Event::Done),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// The lists are only a quicker way to what a look at every node would find.
    #[test]
    fn a_choice_is_what_a_look_at_everyone_allows(events in prop::collection::vec(event(), 1..80)) {
        let mut router = Router::default();
        for (host, group) in [(1, "red"), (2, "red"), (3, "blue")] {
            put(&mut router, &format!("host{host}"), Some(group));
        }
        let mut running = Vec::new();
        for event in events {
            match event {
                Event::Join(n) => router.join(key(n), account(&format!("host{n}"))),
                Event::Leave(n) => router.leave(&key(n)),
                Event::Offer(n, scope, warm) => {
                    let services = warm.into_iter().enumerate();
                    let offers = services.map(|(i, warm)| {
                        ServiceOffer { service: i.to_string(), scope, warm, ..service("m") }
                    });
                    router.offer(&key(n), offers.collect());
                }
                Event::State(n, accepting, free_slots) => {
                    router.state(&key(n), &State { accepting, free_slots, ..READY });
                }
                Event::Full(n) => router.full(&key(n)),
                Event::Done(n) => if let Some(n) = usize::from(n).checked_rem(running.len()) {
                    router.release(&running.swap_remove(n), None);
                },
                Event::Ask(n, scope) => {
                    let (me, wanted) = (account(&format!("host{n}")), Wanted { scope, ..wanted("m") });
                    let can = |node: &Node| {
                        router.distance(&me, &node.account).is_some_and(|distance| {
                            distance <= scope && node.accepting && node.services.iter().any(|service| {
                                distance <= service.offer.scope && node.has_room(service)
                            })
                        })
                    };
                    let all: Vec<(PublicKey, Option<Scope>)> = router.nodes.iter().flatten().filter(|it| can(it))
                        .map(|it| (it.key, router.distance(&me, &it.account))).collect();
                    let choice = choose(&mut router, &me, &wanted, u64::from(n) << 32);
                    prop_assert_eq!(choice.is_ok(), !all.is_empty(), "{:?} of {:?}", choice, all);
                    if let Ok(choice) = choice {
                        let nearest = all.iter().map(|(_, distance)| *distance).min();
                        let chosen = all.iter().find(|(key, _)| *key == choice.node);
                        let distance = chosen.map(|(_, distance)| *distance);
                        prop_assert!(distance.is_some());
                        // A circle and the hub's own are equally near.
                        prop_assert_eq!(distance, nearest);
                        running.push(choice);
                    }
                }
            }
            for (at, node) in router.nodes.iter().enumerate() {
                for service in node.iter().flat_map(|node| &node.services) {
                    for spot in &service.spots {
                        let (entry, is_ready) = router.lists.at(*spot).unwrap();
                        prop_assert_eq!(entry.node as usize, at);
                        let node = node.as_ref().unwrap();
                        prop_assert_eq!(is_ready, node.accepting && node.has_room(service));
                    }
                }
            }
        }
    }
}
