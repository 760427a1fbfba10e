//! Plugs as they answer, and as they fail to. The exchanges are in `exchanges/`, with where each comes from.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use idlewatt_core::device::{Scope, SensorReading};
use idlewatt_signals::{LIMIT, Plug, PlugAddress, PlugError};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use wiremock::matchers::{header, path};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

const TOKEN: &str = "long-lived-access-token";

/// A device that answers the pages of an exchange and has no others.
async fn device(exchange: &str) -> MockServer {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/exchanges/{exchange}.json"));
    let text = std::fs::read_to_string(file).unwrap().replace("LATELY", &Timestamp::now().to_string());
    let pages: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
    let server = MockServer::start().await;
    let answer = move |request: &Request| {
        let query = request.url.query().map_or_else(String::new, |query| format!("?{query}"));
        match pages.get(&format!("{}{query}", request.url.path())) {
            Some(page) => ResponseTemplate::new(200).set_body_json(page),
            None => ResponseTemplate::new(404),
        }
    };
    Mock::given(wiremock::matchers::any()).respond_with(answer).mount(&server).await;
    server
}

/// A Home Assistant that tells this state to who has the token.
async fn home(state: Value) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(path("/api/states/sensor.desk_power"))
        .and(header("authorization", format!("Bearer {TOKEN}")))
        .respond_with(ResponseTemplate::new(200).set_body_json(state))
        .mount(&server)
        .await;
    server
}

async fn silent(answer: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(wiremock::matchers::any()).respond_with(answer).mount(&server).await;
    server
}

fn plug(scheme: &str, server: &MockServer, rest: &str) -> Plug {
    // Like the engine's binaries do at their start.
    drop(rustls::crypto::ring::default_provider().install_default());
    let address: PlugAddress = format!("{scheme}://{}{rest}", server.address()).parse().unwrap();
    Plug::new(&address).unwrap()
}

async fn read(scheme: &str, server: &MockServer, rest: &str) -> Result<SensorReading, PlugError> {
    plug(scheme, server, rest).read().await
}

async fn milliwatts(scheme: &str, exchange: &str, rest: &str) -> i64 {
    read(scheme, &device(exchange).await, rest).await.unwrap().power.unwrap().value.0
}

fn token_file(text: &str, mode: u32) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ha.token");
    std::fs::write(&file, text).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let rest = format!("/sensor.desk_power?token={}", file.display());
    (folder, rest)
}

#[tokio::test]
async fn a_plug_tells_what_the_machine_draws_at_the_wall() {
    let server = device("shelly-plus-plug-us").await;
    let mut plug = plug("shelly", &server, "");
    assert_eq!(plug.sensor().scope, Scope::Wall);
    assert_eq!(plug.sensor().id, format!("plug:{}", server.address()));
    let reading = plug.read().await.unwrap();
    assert_eq!((reading.power.unwrap().value.0, reading.energy.unwrap().0), (10_700, 0));
    assert_eq!(&reading.sensor, &plug.sensor().id);
    plug.read().await.unwrap();
    let asked: Vec<String> =
        server.received_requests().await.unwrap().iter().map(|it| it.url.path().to_owned()).collect();
    assert_eq!(asked, ["/shelly", "/rpc/Shelly.GetStatus", "/rpc/Shelly.GetStatus"], "who it is, once");
}

#[tokio::test]
async fn every_kind_of_shelly_is_told_by_what_it_says_of_itself() {
    for (exchange, channel, expected) in [
        ("shelly-plus-plug-us", "", 10_700),
        ("shelly-plug-s", "", 471_120),
        ("shelly-em", "/1", 155_020),
        ("shelly-pro-3em-monophase", "/0", 598_900),
        ("shelly-pro-3em", "/2", 165_500),
    ] {
        assert_eq!(milliwatts("shelly", exchange, channel).await, expected, "{exchange}");
    }
}

/// What a counter has risen by, mJ, when its number rises by one in the plug's own unit.
async fn one_more(scheme: &str, pages: [(&str, Value); 2], counter: &str) -> i64 {
    let server = MockServer::start().await;
    let mount = async |plus: f64| {
        server.reset().await;
        for (page, answer) in &pages {
            let mut answer = answer.clone();
            if let Some(number) = answer.pointer_mut(counter) {
                *number = json!(number.as_f64().unwrap() + plus);
            }
            let answer = ResponseTemplate::new(200).set_body_json(answer);
            Mock::given(path(*page)).respond_with(answer).mount(&server).await;
        }
    };
    mount(0.0).await;
    let mut plug = plug(scheme, &server, "");
    assert_eq!(plug.read().await.unwrap().energy.unwrap().0, 0, "counted since the first reading");
    mount(1.0).await;
    plug.read().await.unwrap().energy.unwrap().0
}

#[tokio::test]
async fn counters_rise_in_the_unit_of_their_kind() {
    let gen1 = ("/shelly", json!({"type": "SHPLG-S"}));
    let gen2 = ("/shelly", json!({"gen": 3}));
    let meters = json!({"meters": [{"power": 1.0, "is_valid": true, "total": 50}]});
    assert_eq!(
        one_more("shelly", [gen1.clone(), ("/status", meters)], "/meters/0/total").await,
        60_000,
        "W·min"
    );
    let emeters = json!({"emeters": [{"power": 1.0, "is_valid": true, "total": 50.5}]});
    assert_eq!(one_more("shelly", [gen1, ("/status", emeters)], "/emeters/0/total").await, 3_600_000, "Wh");
    let switch = json!({"switch:0": {"apower": 1.0, "aenergy": {"total": 7.25}}});
    let energy =
        one_more("shelly", [gen2, ("/rpc/Shelly.GetStatus", switch)], "/switch:0/aenergy/total").await;
    assert_eq!(energy, 3_600_000, "Wh");
    // A whole kilowatt-hour at once is no rise of this machine's, so one watt-hour more is told in thousandths.
    let tasmota = |total: f64| json!({"StatusSNS": {"ENERGY": {"Power": 1, "Total": total}}});
    let server = silent(ResponseTemplate::new(200).set_body_json(tasmota(167.743))).await;
    let mut plug = plug("tasmota", &server, "");
    plug.read().await.unwrap();
    server.reset().await;
    let answer = ResponseTemplate::new(200).set_body_json(tasmota(167.744));
    Mock::given(path("/cm")).respond_with(answer).mount(&server).await;
    assert_eq!(plug.read().await.unwrap().energy.unwrap().0, 3_600_000, "kWh");
}

#[tokio::test]
async fn a_tasmota_tells_its_channels_apart_and_gives_no_channel_the_total_of_all() {
    assert_eq!(milliwatts("tasmota", "tasmota-plug", "").await, 303_000);
    let server = device("tasmota-two-channels").await;
    let second = read("tasmota", &server, "/1").await.unwrap();
    assert_eq!((second.power.unwrap().value.0, second.energy), (40_000, None));
    assert!(matches!(read("tasmota", &server, "/2").await, Err(PlugError::Nothing(_))));
    assert!(matches!(read("tasmota", &device("tasmota-plug").await, "/1").await, Err(PlugError::Nothing(_))));
}

#[tokio::test]
async fn home_assistant_tells_a_number_as_text_in_the_unit_it_names() {
    let (_folder, rest) = token_file(&format!("{TOKEN}\n"), 0o600);
    assert_eq!(milliwatts("homeassistant", "home-assistant", &rest).await, 312_400);
    let told = async |state: &str, unit: &str| {
        let state = json!({"state": state, "attributes": {"unit_of_measurement": unit}});
        read("homeassistant", &home(state).await, &rest).await
    };
    assert_eq!(told("0.3124", "kW").await.unwrap().power.unwrap().value.0, 312_400);
    let counter = told("12.5", "kWh").await.unwrap();
    assert_eq!((counter.power, counter.energy.unwrap().0), (None, 0));
    for (state, unit) in [("unavailable", "W"), ("unknown", "W"), ("nan", "W"), ("inf", "W"), ("21.5", "°C")]
    {
        assert!(matches!(told(state, unit).await, Err(PlugError::Nothing(_))), "{state} {unit}");
    }
    assert!(matches!(told("-5", "W").await, Err(PlugError::Implausible(_))));
}

#[tokio::test]
async fn a_sensor_that_home_assistant_has_not_heard_of_for_long_is_not_believed() {
    let (_folder, rest) = token_file(TOKEN, 0o600);
    let since = |minutes: i64| (Timestamp::now() - SignedDuration::from_mins(minutes)).to_string();
    let told = async |minutes: i64| {
        let attributes = json!({"unit_of_measurement": "W"});
        let state = json!({"state": "80", "attributes": attributes, "last_reported": since(minutes)});
        read("homeassistant", &home(state).await, &rest).await
    };
    assert!(told(5).await.is_ok());
    assert_eq!(told(40).await.unwrap_err(), PlugError::Stale { minutes: 40 });
}

#[tokio::test]
async fn a_token_is_read_from_a_file_of_ones_own_and_told_to_nobody() {
    let state = json!({"state": "80", "attributes": {"unit_of_measurement": "W"}});
    let server = home(state).await;
    let (_folder, wrong) = token_file("another-token", 0o600);
    // The mock has no page for it.
    assert!(matches!(read("homeassistant", &server, &wrong).await, Err(PlugError::Nothing(_))));
    let refusing = silent(ResponseTemplate::new(401)).await;
    let mut errors = vec![read("homeassistant", &refusing, &wrong).await.unwrap_err()];
    let (_folder, empty) = token_file("\n", 0o600);
    errors.push(read("homeassistant", &server, &empty).await.unwrap_err());
    let missing = "/sensor.desk_power?token=/nowhere/ha.token";
    errors.push(read("homeassistant", &server, missing).await.unwrap_err());
    #[cfg(unix)]
    {
        let (_folder, open) = token_file(TOKEN, 0o644);
        errors.push(read("homeassistant", &server, &open).await.unwrap_err());
    }
    for error in errors {
        assert!(matches!(&error, PlugError::Token(text) if text.contains("ha.token")), "{error}");
        assert!(!error.to_string().contains("another-token") && !error.to_string().contains(TOKEN));
    }
}

#[tokio::test]
async fn a_token_that_was_refused_is_read_anew() {
    let state = json!({"state": "80", "attributes": {"unit_of_measurement": "W"}});
    let server = silent(ResponseTemplate::new(401)).await;
    let (folder, rest) = token_file("an-old-token", 0o600);
    let mut plug = plug("homeassistant", &server, &rest);
    assert!(matches!(plug.read().await, Err(PlugError::Token(_))));
    std::fs::write(folder.path().join("ha.token"), TOKEN).unwrap();
    server.reset().await;
    Mock::given(header("authorization", format!("Bearer {TOKEN}")))
        .respond_with(ResponseTemplate::new(200).set_body_json(state))
        .mount(&server)
        .await;
    assert!(plug.read().await.is_ok());
}

#[tokio::test]
async fn what_measures_nothing_is_no_zero() {
    let told = async |exchange: &str, channel: &str| read("shelly", &device(exchange).await, channel).await;
    // A Shelly 1 shows what its owner typed in.
    assert!(matches!(told("shelly-1", "").await, Err(PlugError::Nothing(_))));
    assert!(matches!(told("shelly-plug-s", "/1").await, Err(PlugError::Nothing(_))));
    assert!(matches!(told("shelly-plus-plug-us", "/1").await, Err(PlugError::Nothing(_))));
    assert!(matches!(told("shelly-pro-3em", "/3").await, Err(PlugError::Nothing(_))));
    let error = told("shelly-em", "").await.unwrap_err().to_string();
    assert!(error.contains("-620.34 W") && error.contains("the other way round"), "{error}");
}

#[tokio::test]
async fn whatever_is_no_reading_is_an_error_that_says_what_it_was() {
    let page = |text: &str| ResponseTemplate::new(200).set_body_string(text);
    let elsewhere = ResponseTemplate::new(302).insert_header("location", "http://192.0.2.1/");
    let mut told = Vec::new();
    for (answer, expected) in [
        (page("<!DOCTYPE html><title>Router</title>"), PlugError::WebPage),
        (page(r#"{"StatusSNS":{"ENERGY":{"Power":nan,"Total":1.0}}}"#), PlugError::NotJson),
        (page(""), PlugError::NotJson),
        (page(&" ".repeat(10 << 20)), PlugError::TooLong),
        (elsewhere, PlugError::Redirect),
        (ResponseTemplate::new(401), PlugError::Password),
        (page(r#"{"WARNING":"Need user=<username>&password=<password>"}"#), PlugError::Password),
        (ResponseTemplate::new(500), PlugError::Status(500)),
    ] {
        let error = read("tasmota", &silent(answer).await, "").await.unwrap_err();
        assert_eq!(error, expected);
        told.push(error.to_string());
    }
    for answer in [
        r#"{"StatusSNS":{"Time":"2024-06-26T16:19:59"}}"#,
        r#"{"StatusSNS":{"ENERGY":{"Total":1.0}}}"#,
        r#"{"StatusSNS":{"ENERGY":{"Power":-3,"Total":1.0}}}"#,
        r#"{"StatusSNS":{"ENERGY":{"Power":1e300}}}"#,
        r#"{"StatusSNS":{"ENERGY":{"Power":30,"Total":-1.0}}}"#,
        "[]",
    ] {
        told.push(read("tasmota", &silent(page(answer)).await, "").await.unwrap_err().to_string());
    }
    told.push(read("shelly", &silent(page(r#"{"hello":"world"}"#)).await, "").await.unwrap_err().to_string());
    insta::assert_snapshot!(told.join("\n"));
}

#[tokio::test]
async fn a_plug_that_answers_slowly_or_not_at_all_is_not_waited_for() {
    let slow = silent(ResponseTemplate::new(200).set_delay(Duration::from_secs(30))).await;
    let asked = Instant::now();
    assert_eq!(read("tasmota", &slow, "").await.unwrap_err(), PlugError::Slow);
    assert!(asked.elapsed() < 2 * LIMIT, "{:?}", asked.elapsed());
    // Nobody listens on a port that was just given back.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let address: PlugAddress = format!("tasmota://{gone}").parse().unwrap();
    assert!(matches!(Plug::new(&address).unwrap().read().await, Err(PlugError::Unreachable(_))));
}

#[tokio::test]
async fn another_device_at_the_same_address_is_asked_who_it_is() {
    let server = device("shelly-plug-s").await;
    let mut plug = plug("shelly", &server, "");
    assert_eq!(plug.read().await.unwrap().power.unwrap().value.0, 471_120);
    server.reset().await;
    let who = ResponseTemplate::new(200).set_body_json(json!({"gen": 2}));
    Mock::given(path("/shelly")).respond_with(who).mount(&server).await;
    let status = ResponseTemplate::new(200).set_body_json(json!({"pm1:0": {"apower": 5.5}}));
    Mock::given(path("/rpc/Shelly.GetStatus")).respond_with(status).mount(&server).await;
    assert_eq!(plug.read().await.unwrap_err(), PlugError::Status(404));
    let reading = plug.read().await.unwrap();
    assert_eq!((reading.power.unwrap().value.0, reading.energy), (5_500, None));
}
