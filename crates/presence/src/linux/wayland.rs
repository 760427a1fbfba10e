//! Wayland compositors that tell of idleness (`ext_idle_notifier_v1`): KDE, wlroots and its kin, COSMIC, niri. They say when
//! a seat has been left alone for a time and when it is touched again, and nothing else: no key, no window.

use std::future::pending;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use idlewatt_core::presence::PresenceReading;
use wayland_client::backend::WaylandError;
use wayland_client::protocol::{wl_callback, wl_registry, wl_seat};
use wayland_client::{Connection, Dispatch, DispatchError, EventQueue, Proxy as _, QueueHandle};
use wayland_protocols::ext::idle_notify::v1::client::ext_idle_notification_v1::{self as notification};
use wayland_protocols::ext::idle_notify::v1::client::ext_idle_notifier_v1::{self as notifier};

use super::wire::Wire;
use crate::teller::Teller;
use crate::{Sight, before_now};

/// The version whose notifications film players cannot hold back.
const OF_INPUT: u32 = notifier::REQ_GET_INPUT_IDLE_NOTIFICATION_SINCE;

/// A compositor says what it offers at once; one that has not by now hangs.
const PATIENCE: Duration = Duration::from_secs(10);

const SEES_ALL_INPUT: &[&str] = &[];
const HELD_BACK: &[&str] = &["rest while a film or another program keeps the screen on: that counts as use"];

/// Why this compositor tells nothing, or no more.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error("no compositor answers ({0})")]
    Connect(std::io::Error),
    #[error("the compositor is gone ({0})")]
    Gone(#[from] WaylandError),
    #[error("the compositor breaks the protocol ({0})")]
    Broken(#[from] DispatchError),
    #[error("the connection cannot be waited on ({0})")]
    Wait(#[from] std::io::Error),
    #[error("the compositor does not answer")]
    Silent,
}

/// An open connection to a compositor that has said what it offers.
pub(super) struct Compositor {
    queue: EventQueue<Seen>,
    wire: Wire,
    seen: Seen,
}

impl Compositor {
    pub(super) async fn connect(socket: &Path) -> Result<Self, Lost> {
        let stream = UnixStream::connect(socket).map_err(Lost::Connect)?;
        let wire = Wire::new(OwnedFd::from(stream.try_clone()?))?;
        // The one failure of this is a path it would look up itself.
        let server = Connection::from_socket(stream).map_err(|_| Lost::Silent)?;
        let queue = server.new_event_queue();
        let handle = queue.handle();
        let display = server.display();
        display.get_registry(&handle, ());
        display.sync(&handle, ());
        let mut compositor = Self { queue, wire, seen: Seen::default() };
        let answered = tokio::time::timeout(PATIENCE, async {
            while !compositor.seen.listed {
                compositor.turn().await?;
            }
            Ok(())
        });
        match answered.await {
            Ok(answer) => answer.map(|()| compositor),
            Err(_) => Err(Lost::Silent),
        }
    }

    /// Whether it tells of input at all.
    pub(super) fn tells(&self) -> bool {
        self.seen.notifier.is_some()
    }

    /// Waits until the compositor is gone.
    pub(super) async fn gone(mut self) -> Lost {
        loop {
            if let Err(lost) = self.turn().await {
                return lost;
            }
        }
    }

    /// Tells of input at all its seats until the compositor is gone.
    pub(super) async fn follow(mut self, quiet: Duration, teller: &Teller) -> Lost {
        let Some(notifier) = &self.seen.notifier else { return pending().await };
        let held_back = notifier.version() < OF_INPUT;
        // The compositor does not say how long nobody has been here: it counts from now on.
        self.seen.quiet = quiet;
        self.seen.tell = Some(teller.clone());
        self.seen.watch_seats(&self.queue.handle());
        teller.source(Sight {
            reading: self.seen.reading(),
            source: "the Wayland compositor's idle notifications".to_owned(),
            unseen: if held_back { HELD_BACK } else { SEES_ALL_INPUT },
            action: None,
        });
        self.gone().await
    }

    /// Sends what is to be sent, waits for the compositor to say something, and hears it.
    async fn turn(&mut self) -> Result<(), Lost> {
        self.queue.flush()?;
        let mut ready = self.wire.readable().await?;
        if let Some(reading) = self.queue.prepare_read() {
            match reading.read() {
                Ok(_) => {}
                Err(WaylandError::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    ready.clear_ready();
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.queue.dispatch_pending(&mut self.seen)?;
        Ok(())
    }
}

/// What the compositor has said.
#[derive(Default)]
struct Seen {
    listed: bool,
    notifier: Option<notifier::ExtIdleNotifierV1>,
    seats: Vec<Seat>,
    quiet: Duration,
    /// From the moment somebody wants to know.
    tell: Option<Teller>,
}

struct Seat {
    /// In the registry.
    name: u32,
    seat: wl_seat::WlSeat,
    notification: Option<notification::ExtIdleNotificationV1>,
    /// The last input, once it rests.
    rests: Option<Instant>,
}

impl Seen {
    /// Asks for notifications of every seat that has none yet.
    fn watch_seats(&mut self, handle: &QueueHandle<Self>) {
        let (Some(notifier), Some(_)) = (&self.notifier, &self.tell) else { return };
        let quiet = u32::try_from(self.quiet.as_millis()).unwrap_or(u32::MAX);
        for seat in self.seats.iter_mut().filter(|seat| seat.notification.is_none()) {
            seat.notification = Some(if notifier.version() < OF_INPUT {
                notifier.get_idle_notification(quiet, &seat.seat, handle, seat.name)
            } else {
                notifier.get_input_idle_notification(quiet, &seat.seat, handle, seat.name)
            });
        }
    }

    /// A person at any seat is a person.
    fn reading(&self) -> PresenceReading {
        let rests: Option<Vec<Instant>> = self.seats.iter().map(|seat| seat.rests).collect();
        match rests {
            // A compositor without a seat has nobody to tell of.
            Some(rests) => {
                let last_input = rests.into_iter().max().unwrap_or_else(|| before_now(self.quiet));
                PresenceReading::Idle { last_input }
            }
            None => PresenceReading::Active { since: Instant::now() },
        }
    }

    fn tell(&self) {
        if let Some(teller) = &self.tell {
            teller.reading(self.reading());
        }
    }
}

impl Dispatch<wl_registry::WlRegistry, ()> for Seen {
    fn event(
        seen: &mut Self,
        registry: &wl_registry::WlRegistry,
        event: wl_registry::Event,
        (): &(),
        _: &Connection,
        handle: &QueueHandle<Self>,
    ) {
        match event {
            wl_registry::Event::Global { name, interface, version } => {
                if interface == notifier::ExtIdleNotifierV1::interface().name {
                    seen.notifier = Some(registry.bind(name, version.min(OF_INPUT), handle, ()));
                } else if interface == wl_seat::WlSeat::interface().name {
                    // Version 1 has what is needed: the seat is only named to the notifier.
                    let seat = registry.bind(name, 1, handle, ());
                    seen.seats.push(Seat { name, seat, notification: None, rests: None });
                    seen.watch_seats(handle);
                    seen.tell();
                }
            }
            wl_registry::Event::GlobalRemove { name } => {
                seen.seats.retain(|seat| {
                    let stays = seat.name != name;
                    if let (false, Some(notification)) = (stays, &seat.notification) {
                        notification.destroy();
                    }
                    stays
                });
                seen.tell();
            }
            _ => {}
        }
    }
}

impl Dispatch<notification::ExtIdleNotificationV1, u32> for Seen {
    fn event(
        seen: &mut Self,
        _: &notification::ExtIdleNotificationV1,
        event: notification::Event,
        of_seat: &u32,
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        let rests = match event {
            notification::Event::Idled => Some(before_now(seen.quiet)),
            _ => None,
        };
        if let Some(seat) = seen.seats.iter_mut().find(|seat| seat.name == *of_seat) {
            seat.rests = rests;
        }
        seen.tell();
    }
}

impl Dispatch<wl_callback::WlCallback, ()> for Seen {
    fn event(
        seen: &mut Self,
        _: &wl_callback::WlCallback,
        _: wl_callback::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        seen.listed = true;
    }
}

impl Dispatch<wl_seat::WlSeat, ()> for Seen {
    fn event(
        _: &mut Self,
        _: &wl_seat::WlSeat,
        _: wl_seat::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        // What devices a seat has says nothing of use.
    }
}

impl Dispatch<notifier::ExtIdleNotifierV1, ()> for Seen {
    fn event(
        _: &mut Self,
        _: &notifier::ExtIdleNotifierV1,
        _: notifier::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        // It has no events.
    }
}
