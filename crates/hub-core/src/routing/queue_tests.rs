use std::collections::VecDeque;

use proptest::prelude::*;

use super::super::tests::{READY, account, key, router, wanted};
use super::*;
use idlewatt_protocol::Scope;

/// Who waits, by a name of the test's own.
fn enter(queue: &mut Queue<u32>, who: &str, model: &str, owner: u32) -> Result<Entered<u32>, QueueFull> {
    queue.enter(&account(who), &Arc::new(wanted(model)), &[], None, owner)
}

/// A router of one node whose two slots are taken, and the choices that took them.
fn full() -> (Router, VecDeque<Choice>) {
    let (mut router, me, wanted) = (router(1), account("before"), wanted("m"));
    let ask = Ask { account: &me, wanted: &wanted, tried: &[] };
    let taken = (0..2).map(|i| router.choose(&ask, i).unwrap()).collect();
    (router, taken)
}

/// Frees the oldest slot; who gets it.
fn turn(queue: &mut Queue<u32>, router: &mut Router, taken: &mut VecDeque<Choice>) -> Option<u32> {
    router.release(&taken.pop_front()?, None);
    let served = queue.next(router, &key(1))?;
    taken.push_back(served.outcome.unwrap());
    Some(served.owner)
}

#[test]
fn a_flood_waits_behind_itself() {
    let (mut router, mut taken) = full();
    let mut queue = Queue::default();
    for i in 0..10 {
        enter(&mut queue, "greedy", "m", i).unwrap();
    }
    assert_eq!(turn(&mut queue, &mut router, &mut taken), Some(0));
    enter(&mut queue, "modest", "m:q4", 100).unwrap();
    enter(&mut queue, "modest", "m", 101).unwrap();
    let order: Vec<_> = std::iter::from_fn(|| turn(&mut queue, &mut router, &mut taken)).take(5).collect();
    assert_eq!(order, [100, 1, 101, 2, 3]);
}

#[test]
fn who_waits_for_what_is_not_free_holds_nobody_up() {
    let (mut router, mut taken) = full();
    let mut queue = Queue::default();
    let mut own = wanted("m");
    own.scope = Scope::Own;
    queue.enter(&account("other"), &Arc::new(own), &[], None, 1).unwrap();
    queue.enter(&account("me"), &Arc::new(wanted("m")), &[key(1)], None, 2).unwrap();
    enter(&mut queue, "new", "m", 3).unwrap();
    assert_eq!(turn(&mut queue, &mut router, &mut taken), Some(3));
    assert_eq!(turn(&mut queue, &mut router, &mut taken), None);
}

#[test]
fn a_refused_busy_costs_no_penalty() {
    let (mut router, mut taken) = full();
    let mut queue = Queue::default();
    enter(&mut queue, "a", "m", 1).unwrap();
    enter(&mut queue, "b", "m", 2).unwrap();
    router.release(&taken.pop_front().unwrap(), None);
    let served = queue.next(&mut router, &key(1)).unwrap();
    assert_eq!(served.owner, 1);
    enter(&mut queue, "c", "m", 3).unwrap();
    // The node is busy for another network: the slot is given back, nothing is held against it, and it is not asked again.
    router.release(&served.outcome.unwrap(), None);
    router.full(&key(1));
    assert_eq!(queue.next(&mut router, &key(1)), None);
    queue.enter(&account("a"), &Arc::new(wanted("m")), &[], Some(served.place), 1).unwrap();
    router.state(&key(1), &READY);
    let order: Vec<_> = std::iter::from_fn(|| queue.next(&mut router, &key(1))).map(|it| it.owner).collect();
    assert_eq!(order, [1], "the first of two slots is still taken");
    assert_eq!(turn(&mut queue, &mut router, &mut taken), Some(2));

    // Nor to who had found a slot at once.
    let mut queue = Queue::default();
    let place = queue.at_once("m");
    enter(&mut queue, "b", "m", 2).unwrap();
    queue.enter(&account("a"), &Arc::new(wanted("m")), &[], Some(place), 1).unwrap();
    taken.extend(std::iter::from_fn(|| queue.next(&mut router, &key(1))).map(|it| it.outcome.unwrap()));
    assert_eq!(queue.total(), 2);
    router.release(&taken.pop_front().unwrap(), None);
    assert_eq!(queue.next(&mut router, &key(1)).unwrap().owner, 1);
}

#[test]
fn who_waits_for_a_node_that_goes_is_told() {
    let (mut router, _) = full();
    let mut queue = Queue::default();
    enter(&mut queue, "a", "m", 1).unwrap();
    let models = router.models_of(&key(1));
    assert_eq!(queue.in_vain(&router, &models), []);
    router.leave(&key(1));
    let over = queue.in_vain(&router, &models);
    assert!(matches!(over[..], [Served { owner: 1, outcome: Err(NoRoute::Away { .. }), .. }]), "{over:?}");
    assert_eq!(queue.total(), 0);
}

#[test]
fn a_full_line_makes_room_for_who_has_less_in_it() {
    let mut queue = Queue::default();
    for i in 0..u32::try_from(MAX_WAITING).unwrap() {
        enter(&mut queue, "greedy", "m", i).unwrap();
    }
    assert_eq!(enter(&mut queue, "greedy", "m", 1000), Err(QueueFull));
    let displaced = enter(&mut queue, "modest", "m", 1001).unwrap().displaced;
    assert_eq!(displaced, Some(u32::try_from(MAX_WAITING).unwrap() - 1), "the last of the greedy one");
    assert_eq!(queue.waiting_for("m"), MAX_WAITING);
    assert!(enter(&mut queue, "greedy", "other", 0).is_ok());
}

#[derive(Clone, Debug)]
enum Act {
    /// An account asks so many times.
    Flood(u8, u8),
    /// So many slots become free.
    Serve(u8),
    /// The n-th who waits goes away.
    Leave(u8),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        (0..6u8, 1..60u8).prop_map(|(who, times)| Act::Flood(who, times)),
        (1..20u8).prop_map(Act::Serve),
        any::<u8>().prop_map(Act::Leave),
    ];
    prop::collection::vec(act, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Whatever the others do: an account's first request waits for at most one turn of every other account.
    #[test]
    fn no_account_waits_more_than_one_turn_of_each_other(before in acts(), after in acts()) {
        let (mut router, mut taken) = full();
        let mut queue: Queue<u32> = Queue::default();
        let mut places: Vec<Place> = Vec::new();
        let mut passed: Option<usize> = None;
        for (is_after, act) in before.into_iter().map(|it| (false, it)).chain(after.into_iter().map(|it| (true, it))) {
            if is_after && passed.is_none() {
                let entered = enter(&mut queue, "modest", "m", 9999);
                prop_assert!(entered.is_ok(), "six others cannot fill a line so that a seventh has no place");
                passed = Some(0);
            }
            match act {
                Act::Flood(who, times) => for _ in 0..times {
                    if let Ok(entered) = enter(&mut queue, &format!("flood{who}"), "m", 0) {
                        places.push(entered.place);
                        prop_assert_ne!(entered.displaced, Some(9999));
                    }
                },
                Act::Serve(times) => for _ in 0..times {
                    match turn(&mut queue, &mut router, &mut taken) {
                        Some(9999) => return Ok(()),
                        Some(_) => passed = passed.map(|passed| passed + 1),
                        // Nobody waits: the slot stays free, as in `full` before.
                        None => {
                            prop_assert_eq!(queue.total(), 0);
                            let (me, wanted) = (account("before"), wanted("m"));
                            let ask = Ask { account: &me, wanted: &wanted, tried: &[] };
                            taken.push_back(router.choose(&ask, 0).unwrap());
                        }
                    }
                },
                Act::Leave(n) => if let Some(n) = usize::from(n).checked_rem(places.len()) {
                    queue.leave("m", places.swap_remove(n));
                },
            }
            prop_assert!(queue.waiting_for("m") <= MAX_WAITING);
            prop_assert!(passed.is_none_or(|passed| passed <= 6), "{:?} turns of six others", passed);
        }
    }

    /// What is counted is what waits, and everyone who waits is served in the end.
    #[test]
    fn nobody_is_forgotten(acts in acts()) {
        let (mut router, mut taken) = full();
        let mut queue: Queue<u32> = Queue::default();
        let mut waiting = 0;
        for act in acts {
            match act {
                Act::Flood(who, times) => for _ in 0..times {
                    if let Ok(entered) = enter(&mut queue, &format!("flood{who}"), "m", 0) {
                        waiting += usize::from(entered.displaced.is_none());
                    }
                },
                Act::Serve(_) if waiting > 0 => {
                    prop_assert!(turn(&mut queue, &mut router, &mut taken).is_some());
                    waiting -= 1;
                }
                _ => {}
            }
            prop_assert_eq!(queue.total(), waiting);
        }
        for _ in 0..waiting {
            prop_assert!(turn(&mut queue, &mut router, &mut taken).is_some());
        }
        prop_assert_eq!(queue.total(), 0);
        prop_assert!(queue.lines.is_empty());
    }
}
