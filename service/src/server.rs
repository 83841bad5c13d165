//! The accept loop and the drain. Own, because `axum::serve` of 0.8 installs no header timer.

mod lingering;

use std::{
    convert::Infallible,
    io,
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{Router, extract::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, MissedTickBehavior, interval, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use self::lingering::Lingering;
use crate::{
    app::{Lifecycle, Phase},
    edge::Peer,
};

/// Time for a client to send the request head. hyper's timer also runs while a keep-alive
/// connection is idle, so it must exceed the ALB's idle timeout (60 s by default, AWS documentation
/// of `idle_timeout.timeout_seconds`), or the ALB reuses a connection that just closed.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(75);

/// Largest request head in bytes.
const MAX_HEAD: usize = 32 * 1024;

/// After SIGTERM new connections are still served this long, with `/health` at 503 and
/// `Connection: close`, so that a load balancer that polls has noticed before it is refused.
const NOTICE: Duration = Duration::from_secs(3);

/// When no request is in flight any more, connections may end for this long: answers on their way. One
/// whose client has sent half a request, or reads no answer, holds nothing up beyond it.
const CLOSING: Duration = Duration::from_secs(2);

/// Longest time between SIGTERM and exit; ECS kills after `stopTimeout` (30 s by default).
const DRAIN: Duration = Duration::from_secs(25);

/// Who answers: the second router as soon as it is there, also on connections that are older than it.
#[derive(Clone)]
struct Routers {
    first: Router,
    second: Arc<OnceLock<Router>>,
}

impl Routers {
    fn new(first: Router) -> Self {
        Self { first, second: Arc::default() }
    }

    fn current(&self) -> Router {
        self.second.get().unwrap_or(&self.first).clone()
    }
}

/// Serves until `stop` is cancelled, then drains. Returns whether everything in flight finished.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    lifecycle: Lifecycle,
    stop: CancellationToken,
) -> bool {
    run(listener, Routers::new(router), GracefulShutdown::new(), lifecycle, stop).await
}

/// As [`serve`], with a router that takes a while to make: `starting` answers until it is there.
pub async fn start<E>(
    listener: TcpListener,
    starting: Router,
    making: impl Future<Output = Result<Router, E>>,
    lifecycle: Lifecycle,
    stop: CancellationToken,
) -> Result<bool, E> {
    let (routers, graceful) = (Routers::new(starting), GracefulShutdown::new());
    let made = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        made = making => Some(made),
        never = accept(&listener, &routers, &graceful) => match never {},
    };
    let Some(made) = made else {
        lifecycle.enter(Phase::Draining);
        drop(listener);
        // Nothing is in flight but answers that it starts.
        let _ = timeout(CLOSING, graceful.shutdown()).await;
        tracing::info!("ended before it served");
        return Ok(true);
    };
    // It is set once, here.
    let _ = routers.second.set(made?);
    Ok(run(listener, routers, graceful, lifecycle, stop).await)
}

async fn run(
    listener: TcpListener,
    routers: Routers,
    graceful: GracefulShutdown,
    lifecycle: Lifecycle,
    stop: CancellationToken,
) -> bool {
    lifecycle.enter(Phase::Serving);
    tracing::info!(release = &*lifecycle.release, address = ?listener.local_addr().ok(), "serving");

    stop.run_until_cancelled(accept(&listener, &routers, &graceful)).await;
    let deadline = Instant::now() + DRAIN;
    lifecycle.enter(Phase::Draining);
    tracing::info!("draining");
    let notice = timeout(NOTICE, accept(&listener, &routers, &graceful)).await;
    debug_assert!(notice.is_err(), "accepting does not end by itself");
    drop(listener);

    lifecycle.tasks.close();
    let finished = timeout_at(deadline, async {
        let mut closing = pin!(graceful.shutdown());
        tokio::select! {
            () = &mut closing => {}
            () = lifecycle.tasks.wait() => {
                let _ = timeout(CLOSING, closing).await;
            }
        }
        lifecycle.tasks.wait().await;
    });
    let clean = finished.await.is_ok();
    tracing::info!(clean, unfinished = lifecycle.tasks.len(), "drained");
    clean
}

/// Accepts until it is dropped.
async fn accept(
    listener: &TcpListener,
    routers: &Routers,
    graceful: &GracefulShutdown,
) -> Infallible {
    // Out of file descriptors, mostly, is why accepting fails: at once again would spin.
    let mut after_failure = interval(Duration::from_millis(100));
    after_failure.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => connect(stream, Peer(peer), routers.clone(), graceful),
            // The peer has gone again: nothing to do with the listener.
            Err(error) if is_connection_error(&error) => {}
            Err(error) => {
                tracing::error!(%error, "accept failed");
                after_failure.tick().await;
            }
        }
    }
}

fn connect(stream: TcpStream, peer: Peer, routers: Routers, graceful: &GracefulShutdown) {
    // Answers are one small write each; waiting for more to send only delays them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        let router = routers.current();
        async move {
            Ok::<_, Infallible>(
                router.oneshot(request).await.unwrap_or_else(|never| match never {}),
            )
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(Lingering::new(stream)), service);
    let watched = graceful.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = watched.await {
            tracing::debug!(%error, "connection ended");
        }
    });
}

fn is_connection_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}
