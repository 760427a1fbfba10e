//! The hub's doors on real sockets: who is believed, and what strangers may hold.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as tests do")]

mod scripted;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use idlewatt_hub::serve::ServeOptions;
use idlewatt_hub_core::allowance::KeyLimits;
use idlewatt_networks::trust::client_config;
use idlewatt_protocol::invite::Invite;
use idlewatt_protocol::{MicroCredits, PublicKey};
use scripted::{PATIENCE, TestHub, account};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// Short enough for a test to wait for; long against what a busy machine takes to notice.
const SHORT: Duration = Duration::from_millis(400);

fn lan(options: &mut ServeOptions) {
    options.lan = Some("127.0.0.1:0".parse().unwrap());
    options.announce = false;
}

fn impatient(options: &mut ServeOptions) {
    lan(options);
    options.bounds.head = SHORT;
    options.bounds.handshake = SHORT;
}

fn knows(key: PublicKey) -> reqwest::Client {
    let tls = client_config(key).unwrap();
    reqwest::Client::builder().no_proxy().timeout(PATIENCE).tls_backend_preconfigured(tls).build().unwrap()
}

#[tokio::test]
async fn only_who_knows_the_hubs_key_believes_its_certificate() {
    let hub = TestHub::start_with(lan).await;
    let url = format!("https://{}/healthz", hub.lan.unwrap());
    let key = PublicKey::from(hub.store.hub_key());
    assert_eq!(knows(key).get(&url).send().await.unwrap().text().await.unwrap(), "ok\n");
    for other in [PublicKey([9; 32]), PublicKey::from(&ed25519_dalek::SigningKey::from_bytes(&[9; 32]))] {
        let refused = knows(other).get(&url).send().await.unwrap_err();
        assert!(refused.is_connect(), "{refused:?}");
    }
}

#[tokio::test]
async fn a_client_that_takes_a_file_of_roots_needs_no_pin() {
    let hub = TestHub::start_with(lan).await;
    let pem = std::fs::read(hub.store.folder().join("hub.pem")).unwrap();
    let root = reqwest::Certificate::from_pem(&pem).unwrap();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([root]).build().unwrap();
    let url = format!("https://{}/healthz", hub.lan.unwrap());
    assert_eq!(client.get(&url).send().await.unwrap().status(), 200);
    let hub = hub.restart_with(lan).await;
    assert_eq!(
        std::fs::read(hub.store.folder().join("hub.pem")).unwrap(),
        pem,
        "the same file for the same key"
    );
}

#[tokio::test]
async fn the_encrypted_door_speaks_http_2() {
    let hub = TestHub::start_with(lan).await;
    let mut tls = client_config(hub.store.hub_key().into()).unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let client = reqwest::Client::builder().no_proxy().tls_backend_preconfigured(tls).build().unwrap();
    let answer = client.get(format!("https://{}/healthz", hub.lan.unwrap())).send().await.unwrap();
    assert_eq!((answer.version(), answer.status().as_u16()), (reqwest::Version::HTTP_2, 200));
    let many = "x".repeat(40 * 1024);
    let refused =
        client.get(format!("https://{}/healthz", hub.lan.unwrap())).header("x-many", many).send().await;
    assert!(refused.is_err() || refused.unwrap().status() == 431, "a head over its limit is refused");
}

#[tokio::test]
async fn an_invite_names_where_the_hub_is_to_be_found() {
    let hub = TestHub::start_with(|options| {
        lan(options);
        options.public_url = Some("https://hub.example".parse().unwrap());
    })
    .await;
    let invite: Invite = hub.store.create_invite(account("anna"), true, None).await.unwrap();
    let hubs: Vec<String> = invite.hubs.iter().map(|url| url.to_string()).collect();
    assert_eq!(hubs, [format!("https://{}/", hub.lan.unwrap()), "https://hub.example/".into()]);
}

/// What came back until the hub closed, and how long it took.
async fn after(address: SocketAddr, sent: &[u8]) -> (String, Duration) {
    let began = Instant::now();
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A hub that has closed already is as good as one that does so now.
    let _ = stream.write_all(sent).await;
    let mut back = Vec::new();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut back)).await;
    assert!(ended.is_ok(), "the hub holds the connection: {:?}", String::from_utf8_lossy(sent));
    (String::from_utf8_lossy(&back).into_owned(), began.elapsed())
}

#[tokio::test]
async fn who_does_not_begin_or_dribbles_a_head_is_let_go() {
    let hub = TestHub::start_with(impatient).await;
    let (plain, lan) = (hub.address, hub.lan.unwrap());
    for (door, sent) in [
        (plain, &b""[..]),
        (plain, b"GET /healthz HTTP/1.1\r\n"),
        (plain, b"GET /healthz HTTP/1.1\r\nhost: a\r\nx-long: aaaaaaaaaaaaaaaaaaaaaaaaaaa"),
        (lan, b""),
        (lan, b"\x16\x03\x01"),
    ] {
        let (_, took) = after(door, sent).await;
        assert!(took >= SHORT / 2, "not before its time: {took:?}");
    }
    // One byte at a time does not buy more of it.
    let mut stream = TcpStream::connect(plain).await.unwrap();
    let dribbled = async {
        for byte in b"GET /healthz HTTP/1.1\r\nhost: a\r\nx-slow: ".iter().cycle() {
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
            sleep(SHORT / 8).await;
        }
    };
    timeout(PATIENCE, dribbled).await.expect("the hub takes a head for ever");
}

#[tokio::test]
async fn plain_http_at_the_encrypted_door_gets_nothing() {
    let hub = TestHub::start_with(impatient).await;
    let (said, _) = after(hub.lan.unwrap(), b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(!said.contains("200"), "{said}");
}

#[tokio::test]
async fn a_request_with_two_meanings_has_none() {
    let hub = TestHub::start_with(impatient).await;
    let hidden = "GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n";
    for head in [
        "content-length: 4\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 4",
        "content-length: 4\r\ncontent-length: 5",
        "content-length: 4, 5",
        "content-length: +4",
        "content-length: -1",
        "content-length: 0x4",
        "content-length : 4",
        "transfer-encoding: xchunked",
        "transfer-encoding: chunked, identity",
        "transfer-encoding:\x0bchunked",
        "transfer-encoding: chunked\r\n transfer-encoding: x",
        "content-length: 99999999999999999999",
    ] {
        let sent = format!("POST /node/v1/keys HTTP/1.1\r\nhost: a\r\n{head}\r\n\r\n0\r\n\r\n{hidden}");
        let (said, _) = after(hub.address, sent.as_bytes()).await;
        assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{head:?} smuggled a request through:\n{said}");
        assert!(said.starts_with("HTTP/1.1 400"), "{head:?}:\n{said}");
    }
}

#[tokio::test]
async fn a_head_has_so_many_bytes_and_so_many_fields() {
    let hub = TestHub::start_with(impatient).await;
    let fields = |n: usize| (0..n).map(|i| format!("x-{i}: y\r\n")).collect::<String>();
    let long = |n: usize| format!("x-long: {}\r\n", "y".repeat(n));
    for (fits, lines) in
        [(true, fields(90)), (false, fields(110)), (true, long(16 * 1024)), (false, long(40 * 1024))]
    {
        let sent = format!("GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{lines}\r\n");
        let (said, _) = after(hub.address, sent.as_bytes()).await;
        let wanted = if fits { "HTTP/1.1 200" } else { "HTTP/1.1 431" };
        assert!(said.starts_with(wanted), "{} bytes: {said}", lines.len());
    }
}

#[tokio::test]
async fn one_address_behind_a_trusted_proxy_holds_so_many_requests() {
    let hub = TestHub::start_with(|options| {
        options.proxies = vec!["127.0.0.0/8".parse().unwrap()];
        options.bounds.per_address = 2;
    })
    .await;
    let _node = hub.node(1).await;
    let body = scripted::chat(true);
    let from = |client: &str| hub.post("/v1/chat/completions", &body).header("x-forwarded-for", client);
    // Nobody answers these: they wait for the node.
    let held: Vec<_> = (0..2).map(|_| tokio::spawn(from("203.0.113.9").send())).collect();
    timeout(PATIENCE, async {
        while !hub.get("/metrics").await.text().await.unwrap().contains("idlewatt_hub_requests_under_way 2") {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let refused = from("203.0.113.9").send().await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].as_bytes()), (429, &b"2"[..]));
    // Another client is not held up, whatever it claims to be.
    let other = hub.http.get(hub.url("/healthz")).header("x-forwarded-for", "203.0.113.9, 203.0.113.10");
    assert_eq!(other.send().await.unwrap().status(), 200);
    held.iter().for_each(tokio::task::JoinHandle::abort);
    timeout(PATIENCE, async {
        while from("203.0.113.9").body("{}").send().await.unwrap().status() == 429 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("places are given back when a client goes away");
}

#[tokio::test]
async fn a_limited_key_is_told_what_is_left_as_openai_tells_it() {
    let hub = TestHub::start().await;
    let limits =
        KeyLimits { requests_per_minute: Some(2), tokens_per_minute: Some(5000), ..KeyLimits::default() };
    let key = hub.store.create_key(account("anna"), MicroCredits(1_000_000), limits).await.unwrap().key;
    let ask = || hub.http.post(hub.url("/v1/chat/completions")).bearer_auth(&key).body("{}").send();
    let told = |answer: &reqwest::Response, what: &str| {
        answer.headers()[&format!("x-ratelimit-{what}")].to_str().unwrap().to_owned()
    };
    let first = ask().await.unwrap();
    assert_eq!(first.status(), 400);
    assert_eq!(
        (told(&first, "limit-requests"), told(&first, "remaining-requests")),
        ("2".into(), "1".into())
    );
    assert_eq!(
        (told(&first, "limit-tokens"), told(&first, "remaining-tokens")),
        ("5000".into(), "5000".into())
    );
    assert_eq!(told(&first, "reset-tokens"), "0s");
    ask().await.unwrap();
    let third = ask().await.unwrap();
    assert_eq!((third.status().as_u16(), told(&third, "remaining-requests")), (429, "0".into()));
    let reset = told(&third, "reset-requests");
    assert!(reset == "1m0s" || reset == "1m1s" || reset.ends_with("s") && reset.len() == 3, "{reset}");
    let seconds: u64 = third.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    let millis: u64 = third.headers()["retry-after-ms"].to_str().unwrap().parse().unwrap();
    assert_eq!(seconds, millis.div_ceil(1000));
    let unlimited = hub.get("/v1/models").await;
    assert!(unlimited.headers().keys().all(|name| !name.as_str().starts_with("x-ratelimit-")));
}

#[tokio::test]
async fn metrics_are_well_formed_and_in_base_units() {
    let hub = TestHub::start().await;
    hub.http.post(hub.url("/v1/chat/completions")).body("{}").send().await.unwrap();
    let text = hub.get("/metrics").await.text().await.unwrap();
    let mut named = std::collections::BTreeSet::new();
    for line in text.lines().filter(|line| line.starts_with("# TYPE ")) {
        let name = line.split(' ').nth(2).unwrap();
        assert!(named.insert(name.to_owned()), "{name} is named twice");
        assert!(!name.contains("milli"), "{name} is not in a base unit");
        assert_eq!(line.ends_with(" counter"), name.ends_with("_total"), "{line}");
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        let base =
            ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        assert!(named.contains(name) || named.contains(base), "{line}: of no known metric");
        assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
    }
    assert!(text.contains("idlewatt_hub_refused_total{status=\"401\"} 1\n"), "{text}");
    assert!(text.contains("idlewatt_hub_first_token_seconds_bucket{le=\"0.01\"} 0\n"), "{text}");
}
