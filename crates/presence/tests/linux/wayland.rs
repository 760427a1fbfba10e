//! A compositor of the test's own, over a real socket.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use idlewatt_compositor::{Compositor, Order};
use idlewatt_core::presence::PresenceReading;
use idlewatt_presence::{Surroundings, Watch, watch};

use crate::rig::{Delays, PATIENCE, QUIET, active, idle, options, until, until_source};

/// Waits until it has been asked for so many notifications, each after the quiet that was set.
async fn asked(compositor: &Compositor, times: usize) {
    let begun = Instant::now();
    while compositor.asked().len() < times {
        assert!(begun.elapsed() < PATIENCE, "nobody asks");
        tokio::task::yield_now().await;
    }
    assert_eq!(compositor.asked(), vec![QUIET; times]);
}

struct Desk {
    /// Holds the socket.
    _folder: tempfile::TempDir,
    socket: PathBuf,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("wayland-0");
        Self { _folder: folder, socket }
    }

    fn watch(&self) -> Watch {
        let surroundings = Surroundings { wayland: Some(self.socket.clone()), ..Surroundings::default() };
        watch(options(surroundings))
    }

    /// One that is watched, and says so.
    async fn with(&self, version: u32) -> (Compositor, Watch) {
        let compositor = Compositor::start(&self.socket, Some(version));
        let watch = self.watch();
        until(&watch, active).await;
        asked(&compositor, 1).await;
        (compositor, watch)
    }
}

#[tokio::test]
async fn a_compositor_tells_of_rest_and_of_return_again_and_again() {
    let desk = Desk::new();
    let (compositor, watch) = desk.with(2).await;
    for _ in 0..3 {
        let before = Instant::now();
        compositor.tell(Order::Rest);
        let PresenceReading::Idle { last_input } = until(&watch, idle).await else { unreachable!() };
        // The compositor waited as long as it was asked to before it said so.
        assert!(last_input.elapsed() >= QUIET && last_input <= before);
        let before = Instant::now();
        compositor.tell(Order::Stir);
        let PresenceReading::Active { since } = until(&watch, active).await else { unreachable!() };
        assert!(since >= before);
    }
    let sight = watch.sight();
    assert_eq!(sight.source, "the Wayland compositor's idle notifications");
    assert!(sight.unseen.is_empty() && sight.action.is_none(), "{sight:?}");
}

#[tokio::test]
async fn an_older_compositor_is_heard_and_what_films_hide_there_is_said() {
    let desk = Desk::new();
    let (compositor, watch) = desk.with(1).await;
    compositor.tell(Order::Rest);
    until(&watch, idle).await;
    assert!(watch.sight().unseen.iter().any(|it| it.contains("film")), "{:?}", watch.sight());
}

#[tokio::test]
async fn a_second_seat_that_appears_is_a_person_until_it_rests_too() {
    let desk = Desk::new();
    let (compositor, watch) = desk.with(2).await;
    compositor.tell(Order::Rest);
    until(&watch, idle).await;
    compositor.tell(Order::Seat);
    until(&watch, active).await;
    asked(&compositor, 2).await;
    compositor.tell(Order::Rest);
    until(&watch, idle).await;
}

#[tokio::test]
async fn a_compositor_that_crashes_is_reported_and_heard_again() {
    let desk = Desk::new();
    let (compositor, watch) = desk.with(2).await;
    drop(compositor);
    until(&watch, |reading| *reading == PresenceReading::Blind).await;
    until_source(&watch, "the compositor is gone").await;
    assert!(watch.sight().action.is_some());
    std::fs::remove_file(&desk.socket).unwrap();
    let compositor = Compositor::start(&desk.socket, Some(2));
    until(&watch, active).await;
    asked(&compositor, 1).await;
    compositor.tell(Order::Rest);
    until(&watch, idle).await;
}

#[tokio::test]
async fn a_compositor_that_speaks_nonsense_is_reported() {
    let desk = Desk::new();
    let (compositor, watch) = desk.with(2).await;
    compositor.tell(Order::Garbage);
    until(&watch, |reading| *reading == PresenceReading::Blind).await;
    until_source(&watch, "Wayland: ").await;
}

#[tokio::test]
async fn a_compositor_that_tells_nothing_leaves_the_session_blind() {
    let desk = Desk::new();
    let _compositor = Compositor::start(&desk.socket, None);
    let watch = desk.watch();
    until_source(&watch, "no source that tells of input").await;
    assert_eq!(watch.sight().reading, PresenceReading::Blind);
}

/// What `script/show presence` claims.
#[tokio::test(flavor = "multi_thread")]
async fn claim_input_on_wayland_is_seen() {
    let desk = Desk::new();
    let (compositor, watch) = desk.with(2).await;
    let mut delays = Delays::new("Wayland, input to event");
    for _ in 0..Delays::inputs() {
        compositor.tell(Order::Rest);
        until(&watch, idle).await;
        let before = Instant::now();
        compositor.tell(Order::Stir);
        until(&watch, active).await;
        delays.add(before.elapsed());
    }
    delays.hold(Duration::from_millis(20));
}
