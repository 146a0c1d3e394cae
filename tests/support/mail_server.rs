//! A small mail server (RFC 5321) on loopback that keeps what it takes, and misbehaves where it is told to.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long it waits for a line that does not come: only a broken test waits so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// What it does with a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manner {
    /// It takes it.
    Takes,
    /// It answers `RCPT` with this line.
    Answers(&'static str),
    /// It takes the message and goes away without saying so.
    VanishesAfterData,
    /// It takes it, with a pause before each answer.
    Slow(Duration),
    /// It wants a login first.
    WantsLogin,
    /// It wants one, and refuses each message with everything that it was told.
    Tells,
}

/// A message that it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// What `MAIL FROM` said.
    pub from: String,
    /// What each `RCPT TO` said.
    pub to: Vec<String>,
    /// Head and body, with the dots of the transport taken away.
    pub text: String,
}

impl Mail {
    /// The values of a field of the head.
    #[must_use]
    pub fn field(&self, name: &str) -> Vec<String> {
        let head = self.text.split("\r\n\r\n").next().unwrap_or_default().replace("\r\n ", " ");
        let start = format!("{}:", name.to_ascii_lowercase());
        let of =
            |line: &str| line.to_ascii_lowercase().starts_with(&start).then(|| line[start.len()..].trim().to_owned());
        head.split("\r\n").filter_map(of).collect()
    }
}

#[derive(Debug, Default)]
struct Kept {
    mails: Mutex<Vec<Mail>>,
    commands: Mutex<Vec<String>>,
    connections: AtomicUsize,
    stopped: AtomicBool,
}

/// The server.
#[derive(Debug)]
pub struct MailServer {
    address: SocketAddr,
    kept: Arc<Kept>,
    manner: Arc<Mutex<Manner>>,
    accepting: Option<JoinHandle<()>>,
}

impl MailServer {
    /// A server on a port of its own.
    ///
    /// # Panics
    /// There is no port.
    #[must_use]
    pub fn new(manner: Manner) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let address = listener.local_addr().expect("address");
        let (kept, manner) = (Arc::new(Kept::default()), Arc::new(Mutex::new(manner)));
        let (shared, told) = (Arc::clone(&kept), Arc::clone(&manner));
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stopped.load(Ordering::SeqCst) {
                    return;
                }
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let Ok(stream) = stream else { continue };
                let (kept, manner) = (Arc::clone(&shared), told.lock().expect("manner").clone());
                std::thread::spawn(move || {
                    // A client that goes away ends its own conversation only.
                    let _ended = serve(stream, &kept, &manner);
                });
            }
        });
        Self { address, kept, manner, accepting: Some(accepting) }
    }

    /// Its port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.address.port()
    }

    /// From the next connection on it behaves like this.
    ///
    /// # Panics
    /// A thread panicked.
    pub fn behave(&self, manner: Manner) {
        *self.manner.lock().expect("manner") = manner;
    }

    /// What it took so far.
    ///
    /// # Panics
    /// A thread panicked.
    #[must_use]
    pub fn mails(&self) -> Vec<Mail> {
        self.kept.mails.lock().expect("mails").clone()
    }

    /// What it was told so far, but for the messages themselves.
    ///
    /// # Panics
    /// A thread panicked.
    #[must_use]
    pub fn commands(&self) -> Vec<String> {
        self.kept.commands.lock().expect("commands").clone()
    }

    /// Connections so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.kept.connections.load(Ordering::SeqCst)
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        self.kept.stopped.store(true, Ordering::SeqCst);
        let _wake = TcpStream::connect(self.address);
        let _ended = self.accepting.take().map(JoinHandle::join);
    }
}

/// One conversation over any connection.
fn serve(stream: TcpStream, kept: &Kept, manner: &Manner) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answers = stream.try_clone()?;
    let mut lines = BufReader::new(stream);
    let mut say = |text: &str| -> std::io::Result<()> {
        if let Manner::Slow(pause) = manner {
            std::thread::sleep(*pause);
        }
        answers.write_all(format!("{text}\r\n").as_bytes())
    };
    say("220 mail.test ready")?;
    let (mut from, mut to, mut known, mut told) = (String::new(), Vec::new(), false, String::new());
    loop {
        let mut line = String::new();
        if lines.by_ref().take(2_000).read_line(&mut line)? == 0 {
            return Ok(());
        }
        let line = line.trim_end().to_owned();
        kept.commands.lock().expect("commands").push(line.clone());
        let word: String = line.chars().take(4).collect::<String>().to_ascii_uppercase();
        match (word.as_str(), manner) {
            ("EHLO", Manner::WantsLogin | Manner::Tells) => say("250-mail.test\r\n250-8BITMIME\r\n250 AUTH PLAIN")?,
            ("EHLO", _) => say("250-mail.test\r\n250 8BITMIME")?,
            ("AUTH", _) => {
                known = true;
                told = line;
                say("235 2.7.0 welcome")?;
            }
            ("MAIL", Manner::WantsLogin) if !known => say("530 5.7.0 who are you?")?,
            ("MAIL", _) => {
                from = line;
                say("250 2.1.0 ok")?;
            }
            ("RCPT", Manner::Answers(answer)) => say(answer)?,
            ("RCPT", Manner::Tells) => say(&format!("550 5.7.1 {told}, as plain text {}", plain(&told)))?,
            ("RCPT", _) => {
                to.push(line);
                say("250 2.1.5 ok")?;
            }
            ("DATA", _) => {
                say("354 go on")?;
                let text = message(&mut lines)?;
                let mail = Mail { from: std::mem::take(&mut from), to: std::mem::take(&mut to), text };
                kept.mails.lock().expect("mails").push(mail);
                if *manner == Manner::VanishesAfterData {
                    return Ok(());
                }
                say("250 2.0.0 queued")?;
            }
            ("QUIT", _) => return say("221 2.0.0 bye"),
            _ => say("502 5.5.1 what?")?,
        }
    }
}

/// The password of a login with `AUTH PLAIN`: Base64 of two names and it, each behind a zero (RFC 4616).
fn plain(login: &str) -> String {
    let digit = |b: u8| match b {
        b'A'..=b'Z' => Some(b - b'A'),
        b'a'..=b'z' => Some(b - b'a' + 26),
        b'0'..=b'9' => Some(b - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let digits: Vec<u8> = login.split(' ').next_back().unwrap_or_default().bytes().filter_map(digit).collect();
    let bytes = digits.chunks(4).flat_map(|four| {
        let bits = four.iter().fold(0_u32, |bits, digit| bits << 6 | u32::from(*digit)) << (6 * (4 - four.len()));
        bits.to_be_bytes().into_iter().skip(1).take(four.len() - 1).collect::<Vec<_>>()
    });
    let text = String::from_utf8_lossy(&bytes.collect::<Vec<_>>()).into_owned();
    text.rsplit('\0').next().unwrap_or_default().to_owned()
}

fn message(lines: &mut impl std::io::BufRead) -> std::io::Result<String> {
    let mut text = String::new();
    loop {
        let mut line = Vec::new();
        if lines.read_until(b'\n', &mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line == b".\r\n" {
            return Ok(text);
        }
        let line = String::from_utf8_lossy(&line).into_owned();
        // A line end of another kind is where servers disagree about the end of a message.
        let plain = line.strip_suffix("\r\n").unwrap_or(&line);
        if plain.contains(['\r', '\n']) {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        text.push_str(line.strip_prefix('.').unwrap_or(&line));
    }
}
