//! The control door as a stranger, a browser and the owner meet it, over real HTTP.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::net::SocketAddr;
use std::time::Duration;

use idlewatt_control::{Code, Request, Response};
use idlewatt_engine::Engine;
use idlewatt_engine::home::{ControlFile, Home};
use reqwest::header::{HOST, ORIGIN};
use reqwest::{Client, RequestBuilder, StatusCode};

struct Running {
    _folder: tempfile::TempDir,
    home: Home,
    engine: Engine,
    file: ControlFile,
    client: Client,
}

async fn running() -> Running {
    drop(rustls::crypto::ring::default_provider().install_default());
    let folder = tempfile::tempdir().unwrap();
    let home = Home::at(folder.path());
    home.prepare().unwrap();
    std::fs::write(&home.config, "[servers]\nscan = false\n[keys]\nstore = \"file\"\n").unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let engine = Engine::start(home.clone(), Some(any)).await.unwrap();
    let file = home.resident().unwrap();
    Running { _folder: folder, home, engine, file, client: Client::builder().no_proxy().build().unwrap() }
}

impl Running {
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.file.address)
    }

    fn ask(&self, request: &Request) -> RequestBuilder {
        self.client.post(self.url("/api/control")).bearer_auth(&self.file.token).json(request)
    }

    async fn answer(&self, request: &Request) -> Response {
        self.ask(request).send().await.unwrap().json().await.unwrap()
    }
}

async fn status(request: RequestBuilder) -> StatusCode {
    request.send().await.unwrap().status()
}

#[tokio::test]
async fn only_the_bearer_of_the_token_is_answered() {
    let it = running().await;
    assert!(matches!(it.answer(&Request::Status).await, Response::Status(_)));
    let control = || it.client.post(it.url("/api/control")).json(&Request::Status);
    assert_eq!(status(control()).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(control().bearer_auth("guess")).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(it.client.get(it.url("/api/events"))).await, StatusCode::UNAUTHORIZED);
    assert_eq!(
        status(it.client.get(it.url("/v1/models")).bearer_auth(&it.file.token)).await,
        StatusCode::UNAUTHORIZED
    );
    it.engine.stop().await;
}

#[tokio::test]
async fn another_name_or_another_page_is_turned_away_even_with_the_token() {
    let it = running().await;
    let ask = || it.ask(&Request::Status);
    assert_eq!(status(ask().header(HOST, "rebound.example")).await, StatusCode::FORBIDDEN);
    assert_eq!(status(ask().header(ORIGIN, "https://evil.example")).await, StatusCode::FORBIDDEN);
    assert_eq!(status(ask().header(ORIGIN, "null")).await, StatusCode::FORBIDDEN);
    let own = format!("http://{}", it.file.address);
    let answer = ask().header(ORIGIN, own).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.headers().get("access-control-allow-origin").is_none());
    assert!(answer.headers()["content-security-policy"].to_str().unwrap().contains("frame-ancestors 'none'"));
    it.engine.stop().await;
}

#[tokio::test]
async fn a_printed_link_opens_the_panel_once() {
    let it = running().await;
    let panel = it.engine.panel();
    let code = panel.split_once("#code=").unwrap().1.to_owned();
    let login = || it.client.post(it.url("/api/login")).json(&serde_json::json!({ "code": code }));
    let answer: serde_json::Value = login().send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["token"], it.file.token.as_str());
    assert_eq!(status(login()).await, StatusCode::UNAUTHORIZED);
    it.engine.stop().await;
}

#[tokio::test]
async fn what_names_code_or_files_is_not_set_over_http() {
    let it = running().await;
    let set = |key: &str, value: &str| Request::SetConfig { key: key.into(), value: value.into() };
    for key in
        ["devices.nvml", "devices.sysfs", "servers.urls", "signals.plugs", "control.listen", "keys.store"]
    {
        let Response::Error(error) = it.answer(&set(key, "x")).await else { panic!("{key} was set") };
        assert_eq!(error.code, Code::LocalOnly, "{key}");
    }
    assert!(matches!(it.answer(&set("share.idle_after", "1m")).await, Response::Config(_)));
    assert!(std::fs::read_to_string(&it.home.config).unwrap().contains("idle_after = \"1m\""));
    it.engine.stop().await;
}

#[tokio::test]
async fn a_file_that_breaks_while_the_engine_runs_leaves_the_last_good_settings_in_force() {
    let it = running().await;
    std::fs::write(&it.home.config, "[share]\nidle_after = \"1m\"\n").unwrap();
    assert!(matches!(it.answer(&Request::ReloadConfig).await, Response::Config(_)));
    std::fs::write(&it.home.config, "[share\n").unwrap();
    let Response::Error(error) = it.answer(&Request::ReloadConfig).await else { panic!("it was taken") };
    assert_eq!(error.code, Code::BadConfig);
    let Response::Config(entries) = it.answer(&Request::Config).await else { panic!("no settings") };
    assert_eq!(entries.iter().find(|it| it.key == "share.idle_after").unwrap().value, "1m");
    let Response::Status(status) = it.answer(&Request::Status).await else { panic!("no status") };
    assert!(status.attention.iter().any(|it| it.what.contains("line 1")), "{:?}", status.attention);
    it.engine.stop().await;
}

#[tokio::test]
async fn a_timed_pause_outlives_the_engine_and_lets_it_rest() {
    let it = running().await;
    let pause = Request::Pause(idlewatt_control::PauseFor::Seconds { seconds: 3600 });
    let Response::Status(paused) = it.answer(&pause).await else { panic!("no status") };
    assert!(paused.reasons.iter().any(|it| it.code == idlewatt_protocol::PauseCode::PausedByHost));
    let home = it.home.clone();
    it.engine.stop().await;
    let engine = Engine::start(home, Some("127.0.0.1:0".parse().unwrap())).await.unwrap();
    let mut events = engine.events();
    let resident = engine.resident();
    let Response::Status(again) = resident.answer(Request::Status).await else { panic!("no status") };
    let held = again.reasons.iter().find(|it| it.code == idlewatt_protocol::PauseCode::PausedByHost).unwrap();
    assert!(held.until.is_some());
    // Screens hear of a change within a second: two seconds without one show that nobody decides anew all the time.
    let mut heard = 0;
    while tokio::time::timeout(Duration::from_secs(2), events.recv()).await.is_ok() {
        heard += 1;
        assert!(heard < 12, "it does not come to rest");
    }
    engine.stop().await;
}
