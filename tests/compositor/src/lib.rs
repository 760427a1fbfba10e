//! A Wayland compositor without a screen, for tests: seats, and `ext_idle_notifier_v1` that says when they rest, over a
//! real socket. Nothing is drawn; whether somebody is there is told by the test.
#![cfg(target_os = "linux")]

use std::io::{PipeReader, PipeWriter, Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use wayland_protocols::ext::idle_notify::v1::server::ext_idle_notification_v1::{self as notification};
use wayland_protocols::ext::idle_notify::v1::server::ext_idle_notifier_v1::{self as notifier};
use wayland_server::protocol::wl_seat;
use wayland_server::{
    Client, DataInit, Dispatch, Display, DisplayHandle, GlobalDispatch, New, Resource as _,
};

/// What the test tells the compositor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Order {
    /// Every seat has rested for as long as each client asked.
    Rest = b'r',
    /// Somebody touched something.
    Stir = b's',
    /// One more seat.
    Seat = b'+',
    /// Bytes that are no message, to every client.
    Garbage = b'!',
}

impl Order {
    const fn of(byte: u8) -> Option<Self> {
        match byte {
            b'r' => Some(Self::Rest),
            b's' => Some(Self::Stir),
            b'+' => Some(Self::Seat),
            b'!' => Some(Self::Garbage),
            _ => None,
        }
    }
}

/// Runs until it is dropped.
pub struct Compositor {
    orders: Option<PipeWriter>,
    /// After how much rest each notification that was asked for is to come.
    asked: Arc<Mutex<Vec<Duration>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Seats {
    /// Each with whether it was told to be idle.
    told: Vec<(notification::ExtIdleNotificationV1, bool)>,
    asked: Arc<Mutex<Vec<Duration>>>,
}

impl Compositor {
    /// Listens on `socket`. Its notifier has this version (1 or 2); without one there is none.
    #[must_use]
    pub fn start(socket: &Path, version: Option<u32>) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let (heard, orders) = std::io::pipe().unwrap();
        let asked = Arc::default();
        let seats = Seats { told: Vec::new(), asked: Arc::clone(&asked) };
        let thread = std::thread::spawn(move || serve(&listener, heard, version, seats));
        Self { orders: Some(orders), asked, thread: Some(thread) }
    }

    /// After how much rest each notification that was asked for so far is to come.
    #[must_use]
    pub fn asked(&self) -> Vec<Duration> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Carried out at once, in the compositor's own thread.
    pub fn tell(&self, order: Order) {
        self.orders.as_ref().unwrap().write_all(&[order as u8]).unwrap();
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
            match Order::of(order[0]).unwrap() {
                Order::Seat => drop(handle.create_global::<Seats, wl_seat::WlSeat, ()>(7, ())),
                Order::Garbage => {
                    for client in &mut raw {
                        let _ = client.write_all(&[0xff; 64]);
                    }
                }
                order => {
                    let rests = order == Order::Rest;
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
        // It begins as not idle, whoever has been away.
        seats.told.push((init.init(id, ()), false));
        let rest = Duration::from_millis(timeout.into());
        seats.asked.lock().unwrap_or_else(PoisonError::into_inner).push(rest);
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
