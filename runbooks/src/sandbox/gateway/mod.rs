//! The gateway: the one address that everything in the sandbox calls AWS. It forwards to the
//! emulator, adds the operations that the emulator lacks, keeps a record of every call, and for
//! tests delays, refuses, cuts and holds answers.

mod answer;
mod autoscaling;
mod control;
mod elasticache;
mod endpoints;
mod faults;
mod gemini;
mod hosts;
mod iam;
mod idempotency;
mod identify;
mod operations;
mod rds;
mod record;
mod requests;
mod servicequotas;
mod stale;
mod state;
mod targets;
mod upstream;
mod waf;
mod web;
mod xray;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::TcpListener;

use self::answer::{Answer, Body};
use self::faults::{Faults, Verdict};
use self::identify::{Call, Form};
use self::record::Record;
use self::requests::Requests;
use self::state::Additions;
use self::upstream::{Payload, Upstream};
use super::error::Error;
use super::{Paths, State, process};

pub(super) use gemini::PATH as GEMINI_PATH;
pub(super) use hosts::{GATEWAY as HOST, write_if_missing as write_hosts_if_missing};

pub(super) const NAME: &str = "gateway";

/// Everything the handlers share.
struct Gateway {
    paths: Paths,
    state: State,
    upstream: Upstream,
    record: Record,
    requests: Requests,
    faults: Faults,
    iam: iam::Enforcement,
    stale: stale::Answers,
    additions: Additions,
    idempotency: idempotency::Memory,
    quotas: servicequotas::Quotas,
    web: web::Bucket,
}

/// Who connects: the host's programs, or the tasks' containers over the bridge.
#[derive(Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Side {
    Host,
    Containers,
}

/// The connection is to be closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("closed without an answer")]
struct Cut;

/// Runs the gateway of the sandbox in `directory` until SIGTERM; the daemon's whole life.
///
/// # Errors
/// When the sandbox's state cannot be read or an address is taken.
pub async fn serve(directory: &Path) -> Result<(), Error> {
    let paths = Paths::of(directory);
    let state = State::load(&paths)?
        .ok_or_else(|| Error::NotRunning { directory: paths.directory.clone() })?;
    let bridge = state.network().gateway();
    let listeners = [
        (Side::Host, Ipv4Addr::LOCALHOST, state.settings.gateway_port),
        (Side::Containers, bridge, state.settings.gateway_port),
        // The emulator tells containers its own port, at an address where only we listen.
        (Side::Containers, bridge, state.emulator_port),
        (Side::Containers, super::network::CREDENTIALS_ADDRESS, state.emulator_port),
    ];
    let gateway = Arc::new(Gateway {
        upstream: Upstream::new(state.emulator_port),
        additions: Additions::load(&paths)?,
        record: Record::default(),
        requests: Requests::open(&paths)?,
        faults: Faults::default(),
        iam: iam::Enforcement::default(),
        stale: stale::Answers::default(),
        idempotency: idempotency::Memory::default(),
        quotas: servicequotas::Quotas::default(),
        web: web::Bucket::default(),
        paths,
        state,
    });
    control::reconcile(&gateway).await?;
    for (side, address, port) in listeners {
        let address = SocketAddr::new(IpAddr::V4(address), port);
        let listener = TcpListener::bind(address)
            .await
            .map_err(|e| Error::io("listen on", Path::new(&address.to_string()), e))?;
        tokio::spawn(accept(Arc::clone(&gateway), listener, side));
    }
    tokio::spawn(targets::follow(Arc::clone(&gateway)));
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(|e| Error::io("wait for", Path::new("SIGTERM"), e))?;
    terminate.recv().await;
    Ok(())
}

/// Starts the daemon: this very program with `sandbox gateway`. `BME_EXECUTABLE` names the
/// program where the caller is another one, such as a test.
pub(super) async fn start(paths: &Paths, state: &State) -> Result<(), Error> {
    process::check_port_free("127.0.0.1", state.settings.gateway_port)?;
    let executable = match std::env::var_os("BME_EXECUTABLE") {
        Some(path) => path.into(),
        None => std::env::current_exe()
            .map_err(|e| Error::io("find", Path::new("the bme executable"), e))?,
    };
    let command = vec![
        executable.to_string_lossy().into_owned(),
        "sandbox".into(),
        "gateway".into(),
        "--directory".into(),
        paths.directory.to_string_lossy().into_owned(),
    ];
    process::Daemon { name: NAME, command, environment: vec![] }.start(&paths.directory)?;
    let port = state.settings.gateway_port;
    process::wait_until(&paths.directory, NAME, 20, || async move {
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
    })
    .await
}

/// Sends a control request to the running gateway.
pub(super) async fn ask(state: &State, method: &str, path: &str) -> Result<(), Error> {
    Upstream::new(state.settings.gateway_port).control(method, path).await
}

async fn accept(gateway: Arc<Gateway>, listener: TcpListener, side: Side) {
    let mut breath = tokio::time::interval(std::time::Duration::from_millis(50));
    breath.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors: wait for connections to end instead of spinning.
            breath.tick().await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let gateway = Arc::clone(&gateway);
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| {
                handle(Arc::clone(&gateway), side, request)
            });
            // A client that goes away, or a cut that a test asked for, is nothing to report.
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn handle(
    gateway: Arc<Gateway>,
    side: Side,
    request: Request<Incoming>,
) -> Result<Response<Body>, Cut> {
    let path = request.uri().path().strip_prefix(GEMINI_PATH).map(ToOwned::to_owned);
    if let Some(path) = path {
        return Ok(gemini::answer(&path, request).await);
    }
    let wanted = gateway.requests.wanted();
    if side == Side::Containers && !wanted {
        return Ok(gateway.upstream.forward(request.map(Payload::streaming)).await);
    }
    let control = request.uri().path().strip_prefix("/_bme/").filter(|_| side == Side::Host);
    if let Some(path) = control {
        let path = path.to_owned();
        return Ok(control::answer(&gateway, &path, request).await);
    }
    let (parts, body) = request.into_parts();
    let needed = identify::needs_body(&parts);
    let read = wanted || gateway.iam.is_on();
    let payload = if needed || (read && !identify::carries_data(&parts)) {
        match body.collect().await {
            Ok(collected) => Payload::Whole(collected.to_bytes()),
            Err(_) => return Err(Cut),
        }
    } else {
        Payload::streaming(body)
    };
    let form = payload.whole().filter(|_| identify::is_form(&parts)).map(Form::parse);
    let request = Request::from_parts(parts, payload);
    let Some(call) = identify::identify(&request, form.as_ref(), &gateway.state.settings) else {
        return Ok(gateway.upstream.forward(request).await);
    };
    if wanted {
        gateway.requests.write(side, &call, &request);
    }
    match side {
        Side::Host => recorded(&gateway, call, request, form, needed).await,
        Side::Containers => Ok(gateway.upstream.forward(request).await),
    }
}

/// Answers a call, with its entry in the record and the faults that tests asked for. `needed` tells
/// that its body was read for the answer, not only to be written down.
async fn recorded(
    gateway: &Arc<Gateway>,
    call: Call,
    request: Request<Payload>,
    form: Option<Form>,
    needed: bool,
) -> Result<Response<Body>, Cut> {
    let header =
        |name| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let entry = gateway.record.begin(&call, header("user-agent"), header("x-amz-date"));
    let verdict = gateway.faults.decide(&call);
    if let Some(kind) = verdict.as_ref().map(Verdict::name) {
        entry.fault(kind);
    }
    match &verdict {
        Some(Verdict::Delay(duration)) => {
            tokio::time::sleep_until(tokio::time::Instant::now() + *duration).await;
        }
        Some(Verdict::Status { status, code, message }) => {
            let answer = answer::fault(&call, *status, code, message);
            entry.finish(answer.status.as_u16(), Some(answer::FAULT_REQUEST_ID));
            return Ok(answer.into_response());
        }
        Some(Verdict::CutBefore) => return Err(Cut),
        Some(Verdict::HoldBefore) => {
            gateway.faults.hold(&call, entry.number(), "hold_before").await;
        }
        _ => {}
    }
    if let Some(answer) = iam::refusal(gateway, &call, &request, form.as_ref()).await {
        entry.finish(answer.status.as_u16(), answer::request_id(&answer.headers).as_deref());
        return Ok(answer.into_response());
    }
    // What is written down or held against a policy must not change what is answered.
    let question = stale::Question::of(&call, request.body()).filter(|_| needed);
    if let Some(answer) = question.as_ref().and_then(|question| gateway.stale.former(question)) {
        entry.fault("stale");
        entry.finish(answer.status.as_u16(), None);
        return Ok(answer.into_response());
    }
    // As at AWS, a call that has begun is carried out even when its client dies meanwhile.
    let work = tokio::spawn({
        let (gateway, call) = (Arc::clone(gateway), call.clone());
        async move { dispatch(&gateway, &call, request, form).await }
    });
    let Ok(response) = work.await else { return Err(Cut) };
    gateway.iam.follow(&call);
    let response = gateway.stale.remember(&call, question, response).await;
    entry.finish(response.status().as_u16(), answer::request_id(response.headers()).as_deref());
    match verdict {
        Some(Verdict::CutAfter) => {
            // The emulator's work may go on while the body streams; take it whole.
            let _ = response.into_body().collect().await;
            Err(Cut)
        }
        Some(Verdict::Rewrite { from, to }) => {
            let answer = Answer::of(response).await.ok_or(Cut)?;
            let text = answer.text().replace(&from, &to);
            Ok(answer.with_text(text).into_response())
        }
        Some(Verdict::HoldAfter) => {
            let _ = response.into_body().collect().await;
            gateway.faults.hold(&call, entry.number(), "hold_after").await;
            Err(Cut)
        }
        _ => Ok(response),
    }
}

/// Our own operations first, then those that we complete, then the plain way to the emulator.
async fn dispatch(
    gateway: &Arc<Gateway>,
    call: &Call,
    request: Request<Payload>,
    form: Option<Form>,
) -> Response<Body> {
    let own = match call.service.as_str() {
        "xray" => xray::answer(gateway, call, request.body()),
        "application-autoscaling" => autoscaling::answer(gateway, call, request.body()).await,
        "wafv2" => waf::answer(gateway, call, request.body()),
        "servicequotas" => servicequotas::answer(gateway, call, request.body()),
        _ => None,
    };
    if let Some(answer) = own {
        return answer.into_response();
    }
    gateway.idempotency.forget_deleted(call, request.body(), form.as_ref());
    match (call.service.as_str(), form) {
        ("rds", Some(form)) => rds::answer(gateway, call, &request, form).await.into_response(),
        ("elasticache", Some(form)) => {
            elasticache::answer(gateway, call, &request, form).await.into_response()
        }
        (_, form) => {
            let response = match idempotency::Key::of(call, request.body(), form.as_ref()) {
                Some(key) => {
                    idempotency::answer(gateway, call, &request, key).await.into_response()
                }
                None => gateway.upstream.forward(request).await,
            };
            match form.filter(|_| endpoints::concerns(call)) {
                Some(form) => endpoints::complete(gateway, call, &form, response).await,
                None => response,
            }
        }
    }
}

impl Gateway {
    /// Sends a request whose body is at hand to the emulator and takes the answer whole.
    async fn emulator(&self, request: &Request<Payload>, body: bytes::Bytes) -> Answer {
        self.upstream.send(request, body).await
    }
}
