//! A real X server.

use std::time::{Duration, Instant};

use idlewatt_core::presence::PresenceReading;
use idlewatt_presence::{Options, watch};
use x11rb::connection::{Connection as _, RequestConnection as _};
use x11rb::protocol::dpms::{self, ConnectionExt as _, DPMSMode};
use x11rb::protocol::screensaver::ConnectionExt as _;
use x11rb::protocol::xproto::{
    AtomEnum, ConnectionExt as _, CreateWindowAux, MOTION_NOTIFY_EVENT, PropMode, Window, WindowClass,
};
use x11rb::protocol::xtest::ConnectionExt as _;
use x11rb::wrapper::ConnectionExt as _;

use crate::rig::{Delays, QUIET, Xvfb, active, idle, options, until, until_activity, until_says};

#[tokio::test(flavor = "multi_thread")]
async fn input_on_x11_is_seen_at_once_and_its_absence_after_the_threshold() {
    let server = Xvfb::start(None);
    server.touch();
    let watch = watch(options(server.surroundings()));
    until(&watch, active).await;

    let PresenceReading::Idle { last_input } = until(&watch, idle).await else { unreachable!() };
    assert!(last_input.elapsed() >= QUIET);
    assert!(last_input.elapsed() < QUIET + Duration::from_secs(2), "{:?}", last_input.elapsed());

    for _ in 0..3 {
        let before = Instant::now();
        server.touch();
        let PresenceReading::Active { since } = until(&watch, active).await else { unreachable!() };
        assert!(since >= before);
        until(&watch, idle).await;
    }
    let sight = watch.sight();
    assert_eq!(sight.source, format!("the idle counter of X display {}", server.display));
    assert!(!sight.unseen.is_empty());
}

/// What `script/show presence` claims. The moment of xdotool's input is the server's own, good to a millisecond: its process
/// takes longer to start than everything else together.
#[tokio::test(flavor = "multi_thread")]
async fn claim_input_on_x11_is_seen() {
    let server = Xvfb::start(None);
    let (client, _) = x11rb::connect(Some(&server.display)).unwrap();
    let root = client.setup().roots[0].root;
    let watch = watch(Options { quiet: Duration::from_millis(100), surroundings: server.surroundings() });
    let mut delays =
        [Delays::new("X11, xdotool's input to event"), Delays::new("X11, XTEST request to event")];
    for input in 0..Delays::inputs() {
        until(&watch, idle).await;
        server.nudge();
        until(&watch, active).await;
        let seen = Instant::now();
        let info = client.screensaver_query_info(root).unwrap().reply().unwrap();
        let since_input = Duration::from_millis(info.ms_since_user_input.into());
        delays[0].add(since_input.saturating_sub(seen.elapsed()));

        until(&watch, idle).await;
        let before = Instant::now();
        let place = 10 + i16::try_from(input % 100).unwrap();
        client.xtest_fake_input(MOTION_NOTIFY_EVENT, 1, 0, x11rb::NONE, place, place, 0).unwrap();
        client.flush().unwrap();
        until(&watch, active).await;
        delays[1].add(before.elapsed());
    }
    for delays in &delays {
        delays.hold(Duration::from_millis(20));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_display_that_was_never_touched_reads_idle_from_the_start() {
    let server = Xvfb::start(None);
    tokio::time::sleep(QUIET * 2).await;
    let watch = watch(options(server.surroundings()));
    until(&watch, idle).await;
    server.touch();
    until(&watch, active).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_x_server_that_goes_is_reported_and_found_again() {
    let server = Xvfb::start(None);
    let display = server.display.clone();
    let watch = watch(options(server.surroundings()));
    until(&watch, |reading| active(reading) || idle(reading)).await;
    drop(server);
    until(&watch, |reading| *reading == PresenceReading::Blind).await;
    let sight = watch.sight();
    assert!(sight.source.contains(&display) && sight.source.contains("gone"), "{}", sight.source);
    assert!(sight.action.is_some());

    let server = Xvfb::start(Some(&display));
    until(&watch, |reading| active(reading) || idle(reading)).await;
    until(&watch, idle).await;
    server.touch();
    until(&watch, active).await;
}

/// What a window manager does when `window` comes to the front.
fn in_front(client: &impl x11rb::connection::Connection, window: Window) {
    let root = client.setup().roots[0].root;
    let active = atom(client, "_NET_ACTIVE_WINDOW");
    client.change_property32(PropMode::REPLACE, root, active, AtomEnum::WINDOW, &[window]).unwrap();
    client.flush().unwrap();
}

/// What it does when `window` begins or ends to cover the screen: which window is in front, it does not say again.
fn covers(client: &impl x11rb::connection::Connection, window: Window, covers: bool) {
    let (state, full) = (atom(client, "_NET_WM_STATE"), atom(client, "_NET_WM_STATE_FULLSCREEN"));
    let states: &[u32] = if covers { &[full] } else { &[] };
    client.change_property32(PropMode::REPLACE, window, state, AtomEnum::ATOM, states).unwrap();
    client.flush().unwrap();
}

fn atom(client: &impl x11rb::connection::Connection, name: &str) -> u32 {
    client.intern_atom(false, name.as_bytes()).unwrap().reply().unwrap().atom
}

fn window(client: &impl x11rb::connection::Connection, class: &[u8]) -> Window {
    let window = client.generate_id().unwrap();
    let root = client.setup().roots[0].root;
    let about = CreateWindowAux::new();
    client.create_window(0, window, root, 0, 0, 9, 9, 0, WindowClass::INPUT_OUTPUT, 0, &about).unwrap();
    client.change_property8(PropMode::REPLACE, window, AtomEnum::WM_CLASS, AtomEnum::STRING, class).unwrap();
    window
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_covers_the_screen_is_told_with_its_program_and_for_as_long() {
    let server = Xvfb::start(None);
    let (client, _) = x11rb::connect(Some(&server.display)).unwrap();
    let game = window(&client, b"doom\0Doom\0");
    let other = window(&client, b"xterm\0XTerm\0");
    let watch = watch(options(server.surroundings()));
    until_says(&watch, "full screen", "no window manager").await;
    for _ in 0..3 {
        in_front(&client, game);
        for _ in 0..2 {
            covers(&client, game, true);
            let activity = until_activity(&watch, |it| it.full_screen.is_some()).await;
            assert_eq!(activity.full_screen.unwrap().name, "Doom");
            covers(&client, game, false);
            until_activity(&watch, |it| it.full_screen.is_none()).await;
        }
        covers(&client, game, true);
        until_activity(&watch, |it| it.full_screen.is_some()).await;
        // A covered screen that is left for another program is in use, but not covered.
        in_front(&client, other);
        until_activity(&watch, |it| it.full_screen.is_none()).await;
        in_front(&client, x11rb::NONE);
        until_says(&watch, "full screen", "no window").await;
        // One that covers it when it comes to the front need not say so again.
        in_front(&client, game);
        until_activity(&watch, |it| it.full_screen.is_some()).await;
        covers(&client, game, false);
        until_activity(&watch, |it| it.full_screen.is_none()).await;
    }
    covers(&client, game, true);
    until_activity(&watch, |it| it.full_screen.is_some()).await;
    drop(server);
    until_activity(&watch, |it| it.full_screen.is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_game_that_closes_its_window_covers_nothing() {
    let server = Xvfb::start(None);
    let (client, _) = x11rb::connect(Some(&server.display)).unwrap();
    let game = window(&client, b"doom\0Doom\0");
    covers(&client, game, true);
    in_front(&client, game);
    let watch = watch(options(server.surroundings()));
    until_activity(&watch, |it| it.full_screen.is_some()).await;
    client.destroy_window(game).unwrap();
    in_front(&client, x11rb::NONE);
    until_activity(&watch, |it| it.full_screen.is_none()).await;
    // A window manager that is slow to notice names a window that is gone.
    in_front(&client, window(&client, b"a\0b\0"));
    in_front(&client, client.generate_id().unwrap());
    let again = window(&client, b"again\0Again\0");
    covers(&client, again, true);
    in_front(&client, again);
    let activity = until_activity(&watch, |it| it.full_screen.is_some()).await;
    assert_eq!(activity.full_screen.unwrap().name, "Again");
}

#[tokio::test(flavor = "multi_thread")]
async fn displays_that_go_off_are_told_where_the_server_can_turn_them_off_and_are_unknown_elsewhere() {
    let server = Xvfb::start(None);
    let (client, _) = x11rb::connect(Some(&server.display)).unwrap();
    let watch = watch(options(server.surroundings()));
    until_says(&watch, "full screen", "no window manager").await;
    let has_dpms = client.extension_information(dpms::X11_EXTENSION_NAME).unwrap().is_some();
    if !has_dpms || !client.dpms_capable().unwrap().reply().unwrap().capable {
        // Xvfb has no displays: it must not be told that they are on.
        until_activity(&watch, |it| it.displays_off.is_none()).await;
        return;
    }
    client.dpms_enable().unwrap();
    for _ in 0..3 {
        client.dpms_force_level(DPMSMode::OFF).unwrap();
        client.flush().unwrap();
        until_activity(&watch, |it| it.displays_off == Some(true)).await;
        client.dpms_force_level(DPMSMode::ON).unwrap();
        client.flush().unwrap();
        until_activity(&watch, |it| it.displays_off == Some(false)).await;
    }
}
