//! Connections: where they come in, how many there may be, and how long one may take.
//!
//! A connection holds a place from its first byte to its last. Whoever says nothing, says it too
//! slowly or does not listen loses it, so that places cannot be held by doing nothing.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::future::RouteFuture;
use axum::{BoxError, Router};
use axum_server::accept::Accept;
use axum_server::tls_rustls::RustlsAcceptor;
use axum_server::{Control, Handle, Server as Listening};
use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tokio_io_timeout::TimeoutStream;
use tower::{Service, service_fn};
use tracing::warn;

use super::BODY_BYTES_MAX;
use super::problem::Problem;
use crate::server::{Change, Server};
use crate::tls::Tls;

/// Where connections come in.
#[derive(Debug)]
pub struct Doors {
    /// In plain.
    pub plain: TcpListener,
    /// By TLS.
    pub tls: Option<(TcpListener, Arc<Tls>)>,
    /// Connections at one time, through both.
    pub places: usize,
    /// How long what a connection does may take.
    pub waits: Waits,
    /// Who is believed when it says for whom it asks.
    pub proxies: Vec<IpAddr>,
}

/// How long what a connection does may take.
#[derive(Debug, Clone, Copy)]
pub struct Waits {
    /// A request's head, a handshake, and the pause between two requests of a connection.
    pub head: Duration,
    /// All of a small body; a piece of a bundle.
    pub body: Duration,
    /// Whoever takes nothing of its answer for so long gets no more of it.
    pub write: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Self { head: HEAD_WAIT, body: BODY_WAIT, write: WRITE_WAIT }
    }
}

/// Serves until `stop` comes; requests that are being answered are answered then.
pub async fn serve(
    doors: Doors,
    server: Arc<Server>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let control = Control::new();
    let changes = server.changes.clone();
    let ending = control.clone();
    tokio::spawn(async move {
        stop.await;
        // It does not matter if nobody looks on.
        let _ = changes.send(Change::Ends);
        ending.graceful_shutdown(Some(END_WAIT));
    });
    let waits = doors.waits;
    let door = Door { places: Arc::new(Semaphore::new(doors.places)), waits };
    let router = super::router(Arc::clone(&server));
    let hall = Hall { router, body_wait: waits.body, proxies: doors.proxies.into() };
    let Some((listener, tls)) = doors.tls else {
        return plain(doors.plain, door, &control, hall).await;
    };
    let beside = middleware::from_fn_with_state(server, only_what_may_be_plain);
    let beside = Hall { router: hall.router.clone().layer(beside), ..hall.clone() };
    let by_tls = by_tls(listener, door.clone(), &control, hall, &tls);
    let plain = plain(doors.plain, door, &control, beside);
    tokio::try_join!(by_tls, plain).map(|_| ())
}

async fn plain(listener: TcpListener, door: Door, control: &Control, hall: Hall) -> io::Result<()> {
    let head = door.waits.head;
    let listening = Listening::<SocketAddr>::from_listener(listener);
    let mut listening = listening.acceptor(door).http1_only();
    listening.http_builder().http1().header_read_timeout(head);
    let visits = service_fn(|from| ready(Ok::<_, Infallible>(hall.visit(from))));
    listening.handle(Handle::with_control(control.clone())).serve(visits).await
}

async fn by_tls(
    listener: TcpListener,
    door: Door,
    control: &Control,
    hall: Hall,
    tls: &Tls,
) -> io::Result<()> {
    let head = door.waits.head;
    let acceptor = RustlsAcceptor::new(tls.config.clone()).handshake_timeout(head).acceptor(door);
    let mut listening = Listening::<SocketAddr>::from_listener(listener).acceptor(acceptor);
    let builder = listening.http_builder();
    builder.http1().header_read_timeout(head);
    builder.http2().keep_alive_interval(head).max_concurrent_streams(STREAMS_MAX);
    let visits = service_fn(|from| ready(Ok::<_, Infallible>(hall.visit(from))));
    let listening = listening.first_request_timeout(head);
    listening.handle(Handle::with_control(control.clone())).serve(visits).await
}

/// In plain, where there is TLS: what devices ask for, and the way to the rest. A password or a
/// token that came in plain has been read by whoever listens, so it is not even looked at.
async fn only_what_may_be_plain(
    State(server): State<Arc<Server>>,
    request: Request<Body>,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let is_for_devices = ["/api/lead/", "/firmware/"].iter().any(|start| path.starts_with(start))
        || ["/manifest", "/healthz", "/readyz", "/ca.pem"].contains(&path);
    if is_for_devices {
        return next.run(request).await;
    }
    let rest = request.uri().path_and_query().map_or("/", |it| it.as_str());
    let url = format!("{}{rest}", server.public_url);
    if *request.method() == Method::GET && super::wants_page(request.headers()) {
        return Redirect::temporary(&url).into_response();
    }
    let problem = Problem::new(
        StatusCode::FORBIDDEN,
        "tls-required",
        "this is asked by TLS alone, and what came with it may have been read by others",
        format_args!("use {}, and take back a token that came this way", server.public_url),
    );
    problem.into_response()
}

/// What every request goes through before it is looked at. It stands before the router and not in
/// layers of it, since each layer costs a poll as much as its answer does.
#[derive(Debug, Clone)]
struct Hall {
    router: Router,
    body_wait: Duration,
    proxies: Arc<[IpAddr]>,
}

impl Hall {
    fn visit(&self, from: SocketAddr) -> Requests {
        Requests { hall: self.clone(), from }
    }
}

/// The requests of one connection.
#[derive(Debug, Clone)]
struct Requests {
    hall: Hall,
    from: SocketAddr,
}

impl<B> Service<Request<B>> for Requests
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = RouteFuture<Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // A router always is.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut request = in_time(self.hall.body_wait, request);
        let from = for_whom(&self.hall.proxies, self.from, request.headers());
        request.extensions_mut().insert(ConnectInfo(from));
        DefaultBodyLimit::max(BODY_BYTES_MAX).apply(&mut request);
        self.hall.router.call(request)
    }
}

/// Behind a proxy of ours a request comes from whomever the proxy names, so that one who guesses is
/// not everybody. What stands before the last name may be the guesser's own words.
fn for_whom(proxies: &[IpAddr], from: SocketAddr, headers: &HeaderMap) -> SocketAddr {
    if !proxies.contains(&from.ip()) {
        return from;
    }
    let named = headers.get_all(FORWARDED_FOR).iter().next_back();
    let named = named.and_then(|it| it.to_str().ok()).and_then(|it| it.rsplit(',').next());
    match named.map(|name| name.trim().parse::<IpAddr>()) {
        Some(Ok(address)) => SocketAddr::new(address, from.port()),
        _ => from,
    }
}

/// Ends a request whose body takes too long; a bundle may take its time, but must go on.
fn in_time<B>(wait: Duration, request: Request<B>) -> Request<Body>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (parts, body) = request.into_parts();
    if body.is_end_stream() {
        return Request::from_parts(parts, Body::empty());
    }
    let is_bundle =
        ["/api/releases", "/api/releases/check", "/releases"].contains(&parts.uri.path());
    let whole = Instant::now() + wait;
    let pieces = Body::new(body).into_data_stream();
    let pieces = stream::unfold(pieces, move |mut body| async move {
        let by = if is_bundle { Instant::now() + wait } else { whole };
        let piece = match timeout_at(by, body.next()).await {
            Ok(piece) => piece?.map_err(io::Error::other),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the body took too long")),
        };
        Some((piece, body))
    });
    Request::from_parts(parts, Body::from_stream(pieces))
}

/// Lets connections in while there are places.
#[derive(Debug, Clone)]
struct Door {
    places: Arc<Semaphore>,
    waits: Waits,
}

impl<S> Accept<TcpStream, S> for Door {
    type Stream = Visit;
    type Service = S;
    type Future = Ready<io::Result<(Visit, S)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            warn!("a connection was closed at once: all places are taken");
            return ready(Err(io::Error::other("all places are taken")));
        };
        let (prepared, write) = (stream.set_nodelay(true), self.waits.write);
        ready(prepared.map(|()| {
            let mut stream = TimeoutStream::new(stream);
            stream.set_write_timeout(Some(write));
            (Visit { stream: Box::pin(stream), _place: place }, service)
        }))
    }
}

/// A connection and its place.
#[derive(Debug)]
struct Visit {
    stream: Pin<Box<TimeoutStream<TcpStream>>>,
    _place: OwnedSemaphorePermit,
}

impl AsyncRead for Visit {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Visit {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_shutdown(cx)
    }
}

/// As many open files as the host allows are asked for, and what is left for connections once the
/// server has its own.
pub fn places() -> usize {
    #[cfg(unix)]
    let files = rlimit::increase_nofile_limit(FILES_MAX).unwrap_or(FILES_USUAL);
    #[cfg(not(unix))]
    let files = FILES_MAX;
    let files = usize::try_from(files).unwrap_or(usize::MAX);
    files.saturating_sub(FILES_KEPT).max(PLACES_MIN)
}

const FORWARDED_FOR: &str = "x-forwarded-for";
/// Slow lines take seconds; whoever does nothing holds a place for so long.
const HEAD_WAIT: Duration = Duration::from_secs(30);
/// A check-in of 256 KiB at 35 kbit/s.
const BODY_WAIT: Duration = Duration::from_secs(60);
/// A device that writes to its flash takes nothing for a while.
const WRITE_WAIT: Duration = Duration::from_secs(60);
/// What is being answered when the server ends has so long.
const END_WAIT: Duration = Duration::from_secs(30);
/// Requests at one time over one connection of HTTP/2.
const STREAMS_MAX: u32 = 64;
/// More connections than one server serves well.
const FILES_MAX: u64 = 65_536;
/// What a process may open where it cannot be asked.
#[cfg(unix)]
const FILES_USUAL: u64 = 1_024;
/// The database's, the objects', the log.
const FILES_KEPT: usize = 256;
/// However little the host allows.
const PLACES_MIN: usize = 64;
