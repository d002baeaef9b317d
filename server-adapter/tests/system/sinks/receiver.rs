//! A receiver of HTTP sinks, that verifies signatures with another implementation than the one that made them.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

use serde_json::Value as Json;
use tokio_rustls::rustls::{
    ServerConfig, ServerConnection, StreamOwned, crypto,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// A request as it came.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
}

impl Request {
    fn read(stream: &mut impl BufRead) -> Option<Self> {
        let mut line = String::new();
        stream.read_line(&mut line).ok().filter(|&length| length > 0)?;
        let mut words = line.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).ok().filter(|&length| length > 0)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let mut body = vec![0; headers.get("content-length")?.parse().ok()?];
        stream.read_exact(&mut body).ok()?;
        Some(Self { method, target, headers, body })
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(super) fn events(&self) -> Vec<Json> {
        match serde_json::from_slice(&self.body).expect("JSON") {
            Json::Array(events) => events,
            other => panic!("not a batch: {other}"),
        }
    }

    /// As RFC 9421 §3.2 has it, for one signature: reads what is covered from `Signature-Input`, builds the base anew from the request,
    /// and checks it with `ring`.
    pub(super) fn verify(&self, address: SocketAddr, algorithm: &str, key: &[u8]) {
        use ::base64::{Engine, prelude::BASE64_STANDARD};
        let (label, parameters) = self.header("signature-input").split_once('=').expect("an input");
        let (covered, rest) = parameters.strip_prefix('(').and_then(|rest| rest.split_once(')')).expect("a list");
        let mut base = String::new();
        let mut names = Vec::new();
        for name in covered.split(' ').map(|name| name.trim_matches('"')) {
            let value = match name {
                "@method" => self.method.clone(),
                "@target-uri" => format!("http://{address}{}", self.target),
                name => self.headers.get(name).unwrap_or_else(|| panic!("no {name}")).clone(),
            };
            base.push_str(&format!("\"{name}\": {value}\n"));
            names.push(name);
        }
        assert_eq!(names, ["@method", "@target-uri", "content-digest", "content-type"]);
        base.push_str(&format!("\"@signature-params\": {parameters}"));
        assert!(rest.contains(&format!("alg=\"{algorithm}\"")) && rest.contains("keyid=\"shop-1\""), "{rest}");
        let created = rest.split(';').find_map(|part| part.strip_prefix("created=")).expect("created");
        let now = crate::common::now().as_millis() / 1000;
        assert!(now.abs_diff(created.parse().expect("seconds")) < 60);
        let signature =
            self.header("signature").strip_prefix(&format!("{label}=:")).and_then(|rest| rest.strip_suffix(':'));
        let signature = BASE64_STANDARD.decode(signature.expect("a signature")).expect("base64");
        match algorithm {
            "ed25519" => ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, key)
                .verify(base.as_bytes(), &signature)
                .expect("signed by this key"),
            _ => ring::hmac::verify(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key), base.as_bytes(), &signature)
                .expect("signed by this key"),
        }
        let digest = BASE64_STANDARD.encode(ring::digest::digest(&ring::digest::SHA256, &self.body));
        assert_eq!(self.header("content-digest"), format!("sha-256=:{digest}:"));
    }
}

/// What a receiver answers. None: it closes the connection without a word.
pub(super) type Answer = Option<(u16, String)>;

/// A receiver that never ends; its thread goes with the test.
pub(super) struct Receiver {
    pub(super) address: SocketAddr,
    requests: Arc<Mutex<Vec<(Request, u16)>>>,
}

impl Receiver {
    pub(super) fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("bound"), answer)
    }

    pub(super) fn on(listener: TcpListener, answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::over(listener, answer, |stream| stream)
    }

    /// One that speaks TLS, with this certificate and key.
    pub(super) fn tls(
        certificate: &Path,
        key: &Path,
        answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let certificates = CertificateDer::pem_file_iter(certificate).expect("there").map(|one| one.expect("PEM"));
        let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(certificates.collect(), PrivateKeyDer::from_pem_file(key).expect("a key"));
        let config = Arc::new(config.expect("a certificate and its key"));
        Self::over(TcpListener::bind("127.0.0.1:0").expect("bound"), answer, move |stream| {
            StreamOwned::new(ServerConnection::new(Arc::clone(&config)).expect("a connection"), stream)
        })
    }

    fn over<S: Read + Write>(
        listener: TcpListener,
        answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
        speak: impl Fn(TcpStream) -> S + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().expect("an address");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (answer, speak, kept) = (Arc::new(answer), Arc::new(speak), Arc::clone(&requests));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (answer, speak, kept) = (Arc::clone(&answer), Arc::clone(&speak), Arc::clone(&kept));
                thread::spawn(move || {
                    let mut stream = BufReader::new(speak(stream));
                    while let Some(request) = Request::read(&mut stream) {
                        let answered = answer(&request);
                        let status = answered.as_ref().map_or(0, |(status, _)| *status);
                        kept.lock().expect("not poisoned").push((request, status));
                        let Some((status, headers)) = answered else { return };
                        let text = "as the receiver says";
                        let head =
                            format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n{headers}\r\n{text}", text.len());
                        let stream = stream.get_mut();
                        if stream.write_all(head.as_bytes()).and_then(|()| stream.flush()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, requests }
    }

    /// What came, and how it was answered.
    pub(super) fn requests(&self) -> Vec<(Request, u16)> {
        self.requests.lock().expect("not poisoned").clone()
    }

    /// Events of requests that were answered with 2xx, in their order.
    pub(super) fn taken(&self) -> Vec<Json> {
        let taken = self.requests().into_iter().filter(|(_, status)| (200..300).contains(status));
        taken.flat_map(|(request, _)| request.events()).map(|mut event| event["data"].take()).collect()
    }
}
