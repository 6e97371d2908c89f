//! Connections that are slow, silent or too many, and those that come by TLS.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lockstep_server::http::listen::Waits;
use lockstep_server::run::{self, Ready, ServeOptions};
use lockstep_server::tls::{Certificates, TlsOptions};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Long enough for whoever hurries, on any machine; nothing is concluded from how long it was.
const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(600);

async fn ready(folder: &TempDir, with_tls: bool) -> Ready {
    let tls = TlsOptions {
        listen: ([127, 0, 0, 1], 0).into(),
        certificates: Certificates::Own { names: vec!["fleet.local".into()] },
    };
    let options = ServeOptions {
        tls: with_tls.then_some(tls),
        ..ServeOptions::in_folder(folder.path().to_owned())
    };
    run::open(&options).await.unwrap()
}

fn serve(mut ready: Ready, waits: Waits, places: usize) -> SocketAddr {
    (ready.doors.waits, ready.doors.places) = (waits, places);
    let address = ready.address;
    tokio::spawn(ready.serve(std::future::pending()));
    address
}

/// What is answered until the server closes.
async fn rest(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset is an end as well.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

async fn say(address: SocketAddr, words: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(words.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn a_head_that_does_not_come_to_its_end_loses_its_place() {
    let folder = TempDir::new().unwrap();
    let waits = Waits { head: SHORT, body: LONG, write: LONG };
    let address = serve(ready(&folder, false).await, waits, 64);
    for words in ["", "GET /healthz HTTP/1.1\r\nHost: "] {
        assert!(!rest(say(address, words).await).await.contains("200 OK"), "{words}");
    }
    // Neither does one that is kept open, and says nothing more.
    let answer = rest(say(address, "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await).await;
    assert!(answer.contains("200 OK"), "{answer}");
}

#[tokio::test]
async fn a_body_that_does_not_come_to_its_end_is_refused() {
    let folder = TempDir::new().unwrap();
    let waits = Waits { head: LONG, body: SHORT, write: LONG };
    let address = serve(ready(&folder, false).await, waits, 64);
    let head = "POST /api/login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
                Content-Length: 100\r\n\r\n{\"name\":";
    let answer = rest(say(address, head).await).await;
    assert!(answer.starts_with("HTTP/1.1 4") && answer.contains("\"hint\""), "{answer}");
}

#[tokio::test]
async fn when_all_places_are_taken_a_newcomer_is_sent_away_until_one_is_free() {
    let folder = TempDir::new().unwrap();
    let waits = Waits { head: LONG, body: LONG, write: LONG };
    let ready = ready(&folder, true).await;
    let (tls_address, tls) = (ready.tls_address.unwrap(), ready.server.tls.clone().unwrap());
    let address = serve(ready, waits, 1);
    let mut first = say(address, "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut answer = [0; 12];
    first.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    // It may be sent away before it has said anything; let in, it would be answered.
    let ask = "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let newcomer = async || {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(ask.as_bytes()).await;
        rest(stream).await
    };
    assert_eq!(newcomer().await, "");
    let pem = tls.authority().unwrap().pem().to_owned();
    let by_tls = move || by_tls(tls_address, &pem, "localhost");
    let answer = tokio::task::spawn_blocking(by_tls).await.unwrap();
    assert!(answer.is_err(), "the places are for both doors: {answer:?}");
    drop(first);
    for _ in 0..1_000 {
        if newcomer().await.contains("200 OK") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the place was not given again");
}

#[tokio::test]
async fn beside_tls_only_devices_are_answered_in_plain() {
    let folder = TempDir::new().unwrap();
    let ready = ready(&folder, true).await;
    let url = ready.server.public_url.clone();
    assert_eq!(url, format!("https://fleet.local:{}", ready.tls_address.unwrap().port()));
    let address = serve(ready, Waits::default(), 64);
    let ask = async |head: &str| {
        let words = format!("{head}\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer x");
        rest(say(address, &format!("{words}\r\nContent-Length: 0\r\n\r\n")).await).await
    };
    for path in ["/healthz", "/readyz", "/ca.pem"] {
        assert!(ask(&format!("GET {path} HTTP/1.1")).await.contains("200 OK"), "{path}");
    }
    for path in ["/firmware/1.0.0/receiver.bin", "/manifest?system=desk"] {
        let answer = ask(&format!("GET {path} HTTP/1.1")).await;
        assert!(answer.contains("404"), "there is none, and it may be asked for: {answer}");
    }
    let lead = ask("GET /api/lead/desired HTTP/1.1").await;
    assert!(lead.contains("401") && lead.contains("credential"), "{lead}");
    for (method, path) in [
        ("GET", "/api/me"),
        ("POST", "/api/login"),
        ("POST", "/login"),
        ("GET", "/manifests"),
        ("GET", "/healthz/more"),
        ("GET", "/api/leads"),
    ] {
        let answer = ask(&format!("{method} {path} HTTP/1.1")).await;
        assert!(answer.contains("403") && answer.contains("tls-required"), "{path}: {answer}");
    }
    let page = ask("GET /groups?after=a HTTP/1.1\r\nAccept: text/html").await;
    let location = format!("location: {url}/groups?after=a");
    assert!(page.contains("307") && page.contains(&location), "{page}");
}

/// Says something by TLS to whoever shows a certificate for `name`; what is answered, or why not.
fn by_tls(address: SocketAddr, pem: &str, name: &str) -> Result<String, std::io::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(connection, std::net::TcpStream::connect(address)?);
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[tokio::test]
async fn whoever_trusts_the_authority_finds_the_server_by_its_names_alone() {
    let folder = TempDir::new().unwrap();
    let ready = ready(&folder, true).await;
    let address = ready.tls_address.unwrap();
    let tls = ready.server.tls.clone().unwrap();
    let pem = tls.authority().unwrap().pem().to_owned();
    serve(ready, Waits::default(), 64);
    let ask = async |name: &'static str, pem: &str| {
        let pem = pem.to_owned();
        tokio::task::spawn_blocking(move || by_tls(address, &pem, name)).await.unwrap()
    };
    for name in ["fleet.local", "localhost", "127.0.0.1"] {
        assert!(ask(name, &pem).await.unwrap().contains("200 OK"), "{name}");
    }
    let stranger = ask("elsewhere.local", &pem).await.unwrap_err();
    assert!(stranger.to_string().contains("certificate"), "{stranger}");
    let other = TempDir::new().unwrap();
    let other = self::ready(&other, true).await;
    let other = other.server.tls.as_ref().unwrap().authority().unwrap().pem().to_owned();
    let stranger = ask("fleet.local", &other).await.unwrap_err();
    assert!(stranger.to_string().contains("certificate"), "{stranger}");
}

#[tokio::test]
async fn guesses_are_counted_for_whom_a_trusted_proxy_names_and_nobody_else() {
    for is_trusted in [true, false] {
        let folder = TempDir::new().unwrap();
        let mut ready = ready(&folder, false).await;
        if is_trusted {
            ready.doors.proxies = vec![[127, 0, 0, 1].into()];
        }
        let address = serve(ready, Waits::default(), 64);
        let guess = async |named: &str| {
            let head = "GET /api/me HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
                        Authorization: Bearer wrong\r\nX-Forwarded-For: ";
            rest(say(address, &format!("{head}{named}\r\n\r\n")).await).await
        };
        for _ in 0..5 {
            assert!(guess("10.9.9.9, 192.0.2.1").await.contains("401"));
        }
        assert!(guess("10.8.8.8, 192.0.2.1").await.contains("429"));
        let other = guess("192.0.2.1, 192.0.2.2").await;
        assert_eq!(other.contains("401"), is_trusted, "{other}");
    }
}
