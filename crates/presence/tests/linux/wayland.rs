//! A compositor of the test's own, over a real socket.

use std::io::{PipeReader, PipeWriter, Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use idlewatt_core::presence::PresenceReading;
use idlewatt_presence::{Surroundings, Watch, watch};
use rustix::event::{PollFd, PollFlags, poll};
use wayland_protocols::ext::idle_notify::v1::server::ext_idle_notification_v1::{self as notification};
use wayland_protocols::ext::idle_notify::v1::server::ext_idle_notifier_v1::{self as notifier};
use wayland_server::protocol::wl_seat;
use wayland_server::{
    Client, DataInit, Dispatch, Display, DisplayHandle, GlobalDispatch, New, Resource as _,
};

use crate::rig::{Delays, PATIENCE, QUIET, active, idle, options, until, until_source};

/// What the test tells the compositor.
const REST: u8 = b'r';
const STIR: u8 = b's';
const SEAT: u8 = b'+';
const GARBAGE: u8 = b'!';

/// Ends with the test; without a version it has no notifier.
struct Compositor {
    orders: Option<PipeWriter>,
    /// Notifications that were asked for.
    asked: Arc<AtomicUsize>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Seats {
    /// Each with whether it was told to be idle.
    told: Vec<(notification::ExtIdleNotificationV1, bool)>,
    asked: Arc<AtomicUsize>,
}

impl Compositor {
    fn start(socket: &Path, version: Option<u32>) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let (heard, orders) = std::io::pipe().unwrap();
        let asked = Arc::default();
        let seats = Seats { told: Vec::new(), asked: Arc::clone(&asked) };
        let thread = std::thread::spawn(move || serve(&listener, heard, version, seats));
        Self { orders: Some(orders), asked, thread: Some(thread) }
    }

    /// Waits until it has been asked for so many notifications.
    async fn asked(&self, times: usize) {
        let begun = Instant::now();
        while self.asked.load(Ordering::SeqCst) < times {
            assert!(begun.elapsed() < PATIENCE, "nobody asks");
            tokio::task::yield_now().await;
        }
    }

    fn tell(&self, order: u8) {
        self.orders.as_ref().unwrap().write_all(&[order]).unwrap();
    }
}

impl Drop for Compositor {
    fn drop(&mut self) {
        drop(self.orders.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

fn serve(listener: &UnixListener, mut orders: PipeReader, version: Option<u32>, mut seats: Seats) {
    let mut display = Display::<Seats>::new().unwrap();
    let mut handle = display.handle();
    if let Some(version) = version {
        handle.create_global::<Seats, notifier::ExtIdleNotifierV1, ()>(version, ());
    }
    handle.create_global::<Seats, wl_seat::WlSeat, ()>(7, ());
    let mut raw = Vec::new();
    loop {
        display.flush_clients().unwrap();
        let ready = {
            let backend = display.backend().poll_fd();
            let mut waits = [
                PollFd::new(listener, PollFlags::IN),
                PollFd::new(&orders, PollFlags::IN),
                PollFd::new(&backend, PollFlags::IN),
            ];
            poll(&mut waits, None).unwrap();
            waits.map(|it| !it.revents().is_empty())
        };
        if ready[0] {
            let client = listener.accept().unwrap().0;
            raw.push(client.try_clone().unwrap());
            handle.insert_client(client, Arc::new(())).unwrap();
        }
        if ready[1] {
            let mut order = [0];
            if orders.read(&mut order).unwrap() == 0 {
                return;
            }
            match order[0] {
                SEAT => drop(handle.create_global::<Seats, wl_seat::WlSeat, ()>(7, ())),
                GARBAGE => {
                    for client in &mut raw {
                        let _ = client.write_all(&[0xff; 64]);
                    }
                }
                order => {
                    let rests = order == REST;
                    for (told, idled) in seats.told.iter_mut().filter(|(_, idled)| *idled != rests) {
                        *idled = rests;
                        if rests { told.idled() } else { told.resumed() }
                    }
                }
            }
        }
        if ready[2] {
            display.dispatch_clients(&mut seats).unwrap();
        }
    }
}

impl GlobalDispatch<wl_seat::WlSeat, ()> for Seats {
    fn bind(
        _: &mut Self,
        _: &DisplayHandle,
        _: &Client,
        seat: New<wl_seat::WlSeat>,
        (): &(),
        init: &mut DataInit<'_, Self>,
    ) {
        init.init(seat, ()).capabilities(wl_seat::Capability::Pointer);
    }
}

impl GlobalDispatch<notifier::ExtIdleNotifierV1, ()> for Seats {
    fn bind(
        _: &mut Self,
        _: &DisplayHandle,
        _: &Client,
        notifier: New<notifier::ExtIdleNotifierV1>,
        (): &(),
        init: &mut DataInit<'_, Self>,
    ) {
        init.init(notifier, ());
    }
}

impl Dispatch<notifier::ExtIdleNotifierV1, ()> for Seats {
    fn request(
        seats: &mut Self,
        _: &Client,
        notifier: &notifier::ExtIdleNotifierV1,
        request: notifier::Request,
        (): &(),
        _: &DisplayHandle,
        init: &mut DataInit<'_, Self>,
    ) {
        let (id, timeout) = match request {
            notifier::Request::GetIdleNotification { id, timeout, .. } => {
                assert_eq!(notifier.version(), 1, "the better request is there");
                (id, timeout)
            }
            notifier::Request::GetInputIdleNotification { id, timeout, .. } => (id, timeout),
            _ => return,
        };
        assert_eq!(u128::from(timeout), QUIET.as_millis());
        // It begins as not idle, whoever has been away.
        seats.told.push((init.init(id, ()), false));
        seats.asked.fetch_add(1, Ordering::SeqCst);
    }
}

impl Dispatch<notification::ExtIdleNotificationV1, ()> for Seats {
    fn request(
        seats: &mut Self,
        _: &Client,
        gone: &notification::ExtIdleNotificationV1,
        _: notification::Request,
        (): &(),
        _: &DisplayHandle,
        _: &mut DataInit<'_, Self>,
    ) {
        seats.told.retain(|(it, _)| it != gone);
    }
}

impl Dispatch<wl_seat::WlSeat, ()> for Seats {
    fn request(
        _: &mut Self,
        _: &Client,
        _: &wl_seat::WlSeat,
        _: wl_seat::Request,
        (): &(),
        _: &DisplayHandle,
        _: &mut DataInit<'_, Self>,
    ) {
    }
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
        compositor.asked(1).await;
        (compositor, watch)
    }
}

#[tokio::test]
async fn a_compositor_tells_of_rest_and_of_return_again_and_again() {
    let desk = Desk::new();
    let (compositor, watch) = desk.with(2).await;
    for _ in 0..3 {
        let before = Instant::now();
        compositor.tell(REST);
        let PresenceReading::Idle { last_input } = until(&watch, idle).await else { unreachable!() };
        // The compositor waited as long as it was asked to before it said so.
        assert!(last_input.elapsed() >= QUIET && last_input <= before);
        let before = Instant::now();
        compositor.tell(STIR);
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
    compositor.tell(REST);
    until(&watch, idle).await;
    assert!(watch.sight().unseen.iter().any(|it| it.contains("film")), "{:?}", watch.sight());
}

#[tokio::test]
async fn a_second_seat_that_appears_is_a_person_until_it_rests_too() {
    let desk = Desk::new();
    let (compositor, watch) = desk.with(2).await;
    compositor.tell(REST);
    until(&watch, idle).await;
    compositor.tell(SEAT);
    until(&watch, active).await;
    compositor.asked(2).await;
    compositor.tell(REST);
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
    compositor.asked(1).await;
    compositor.tell(REST);
    until(&watch, idle).await;
}

#[tokio::test]
async fn a_compositor_that_speaks_nonsense_is_reported() {
    let desk = Desk::new();
    let (compositor, watch) = desk.with(2).await;
    compositor.tell(GARBAGE);
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
        compositor.tell(REST);
        until(&watch, idle).await;
        let before = Instant::now();
        compositor.tell(STIR);
        until(&watch, active).await;
        delays.add(before.elapsed());
    }
    delays.hold(Duration::from_millis(20));
}
