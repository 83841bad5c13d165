//! An identity provider on the loopback interface: signs tokens, serves its keys and userInfo,
//! exchanges authorization codes as X does, and can rotate the keys and break.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use aws_lc_rs::{
    digest,
    encoding::{AsDer as _, Pkcs8V1Der},
    rsa::{KeyPair, KeySize},
    signature::KeyPair as _,
};
use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    routing::{get, post},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use reqwest::Url;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use uuid::Uuid;

/// The id and the secret of the one client that X knows.
pub(crate) const X_CLIENT: (&str, &str) = ("x-client_id", "x-secret:+~");

/// The access token that X gives.
const X_TOKEN: &str = "canary-x-access-token";

/// A running provider. It stops with the test's runtime.
pub(crate) struct IdentityProvider {
    pub(crate) url: String,
    pub(crate) key: SigningKey,
    served: Arc<Served>,
}

/// A key pair with its id.
pub(crate) struct SigningKey {
    pub(crate) id: String,
    private: EncodingKey,
    /// The public key as in a key set.
    pub(crate) public: Value,
}

#[derive(Default)]
struct Served {
    keys: Mutex<Vec<Value>>,
    user_info: Mutex<Value>,
    broken: AtomicBool,
    key_requests: AtomicU32,
    /// What was announced for each authorization code.
    codes: Mutex<HashMap<String, Announced>>,
    /// The answers of the token endpoint so far.
    exchanges: Mutex<Vec<StatusCode>>,
}

struct Announced {
    challenge: String,
    redirect_uri: String,
}

impl SigningKey {
    pub(crate) fn generate(id: &str) -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let pkcs8: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let public = json!({
            "kid": id, "kty": "RSA", "alg": "RS256", "use": "sig",
            "n": number(pair.public_key().modulus().big_endian_without_leading_zero()),
            "e": number(pair.public_key().exponent().big_endian_without_leading_zero()),
        });
        Self {
            id: id.into(),
            private: EncodingKey::from_rsa_der(pkcs8_to_pkcs1(pkcs8.as_ref())),
            public,
        }
    }

    /// A token with a sound header.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        self.sign_with(
            &Header { kid: Some(self.id.clone()), ..Header::new(Algorithm::RS256) },
            claims,
        )
    }

    pub(crate) fn sign_with(&self, header: &Header, claims: &Value) -> String {
        encode(header, claims, &self.private).unwrap()
    }
}

/// The `RSAPrivateKey` inside a PKCS #8 document of a 2048-bit key: the last octet string, which
/// begins after a header of fixed length (RFC 5208, section 5).
fn pkcs8_to_pkcs1(der: &[u8]) -> &[u8] {
    &der[26..]
}

impl IdentityProvider {
    pub(crate) async fn start() -> Self {
        let key = SigningKey::generate("key-1");
        let served = Arc::new(Served::default());
        served.keys.lock().unwrap().push(key.public.clone());
        let router = Router::new()
            .route("/.well-known/jwks.json", get(keys))
            .route("/oauth2/userInfo", get(user_info))
            .route("/2/oauth2/token", post(token))
            .route("/2/users/me", get(me))
            .with_state(served.clone());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, key, served }
    }

    pub(crate) fn jwks_url(&self) -> String {
        format!("{}/.well-known/jwks.json", self.url)
    }

    /// Signs with another key from now on; the key set has only that one.
    pub(crate) fn rotate(&mut self, id: &str) {
        self.key = SigningKey::generate(id);
        *self.served.keys.lock().unwrap() = vec![self.key.public.clone()];
    }

    /// Whether everything answers 500.
    pub(crate) fn set_broken(&self, broken: bool) {
        self.served.broken.store(broken, Ordering::SeqCst);
    }

    pub(crate) fn set_user_info(&self, info: Value) {
        *self.served.user_info.lock().unwrap() = info;
    }

    /// The person says yes at this address: an authorization code for it.
    pub(crate) fn authorize(&self, url: &Url) -> String {
        let parameters: HashMap<_, _> = url.query_pairs().into_owned().collect();
        assert_eq!(parameters["response_type"], "code");
        assert_eq!(parameters["client_id"], X_CLIENT.0);
        assert_eq!(parameters["code_challenge_method"], "S256");
        assert_eq!(parameters["scope"], "users.read tweet.read");
        let announced = Announced {
            challenge: parameters["code_challenge"].clone(),
            redirect_uri: parameters["redirect_uri"].clone(),
        };
        let code = format!("x-code+/{}", Uuid::now_v7());
        self.served.codes.lock().unwrap().insert(code.clone(), announced);
        code
    }

    /// The answers of the token endpoint so far.
    pub(crate) fn exchanges(&self) -> Vec<StatusCode> {
        self.served.exchanges.lock().unwrap().clone()
    }

    /// How often the keys were asked for.
    pub(crate) fn key_requests(&self) -> u32 {
        self.served.key_requests.load(Ordering::SeqCst)
    }
}

async fn keys(State(served): State<Arc<Served>>) -> Result<String, StatusCode> {
    served.key_requests.fetch_add(1, Ordering::SeqCst);
    let keys = served.keys.lock().unwrap().clone();
    served.answer(&json!({ "keys": keys }))
}

async fn user_info(State(served): State<Arc<Served>>) -> Result<String, StatusCode> {
    let info = served.user_info.lock().unwrap().clone();
    if info.is_null() { Err(StatusCode::UNAUTHORIZED) } else { served.answer(&info) }
}

/// X's token endpoint: the client's credentials, and the verifier of the announced challenge.
async fn token(
    State(served): State<Arc<Served>>,
    headers: HeaderMap,
    body: String,
) -> Result<String, StatusCode> {
    let answer = exchange(&served, &headers, &body);
    served.exchanges.lock().unwrap().push(answer.as_ref().err().copied().unwrap_or(StatusCode::OK));
    answer
}

fn exchange(served: &Served, headers: &HeaderMap, body: &str) -> Result<String, StatusCode> {
    let basic = format!("Basic {}", STANDARD.encode("x-client_id:x-secret%3A%2B~"));
    if headers.get(header::AUTHORIZATION).is_none_or(|value| *value != *basic) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let form = Url::parse(&format!("http://form/?{body}")).unwrap();
    let form: HashMap<_, _> = form.query_pairs().into_owned().collect();
    let announced =
        served.codes.lock().unwrap().remove(&form["code"]).ok_or(StatusCode::BAD_REQUEST)?;
    let verifier = &form["code_verifier"];
    let hash = digest::digest(&digest::SHA256, verifier.as_bytes());
    let sound = URL_SAFE_NO_PAD.encode(hash) == announced.challenge
        && (43..=128).contains(&verifier.len())
        && form["redirect_uri"] == announced.redirect_uri
        && form["grant_type"] == "authorization_code";
    if !sound {
        return Err(StatusCode::BAD_REQUEST);
    }
    served.answer(&json!({ "token_type": "bearer", "expires_in": 7200, "access_token": X_TOKEN }))
}

async fn me(State(served): State<Arc<Served>>, headers: HeaderMap) -> Result<String, StatusCode> {
    let bearer = format!("Bearer {X_TOKEN}");
    if headers.get(header::AUTHORIZATION).is_none_or(|value| *value != *bearer) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let info = served.user_info.lock().unwrap().clone();
    served.answer(&json!({ "data": info }))
}

impl Served {
    fn answer(&self, document: &Value) -> Result<String, StatusCode> {
        if self.broken.load(Ordering::SeqCst) {
            Err(StatusCode::INTERNAL_SERVER_ERROR)
        } else {
            Ok(document.to_string())
        }
    }
}
