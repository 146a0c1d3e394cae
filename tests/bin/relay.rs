//! Pumps bytes between its standard streams and a Unix socket. Tests start it as another user: the daemon sees that user's uid.
//! Usage: `relay SOCKET`.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

fn pump(mut from: impl Read, mut to: impl Write) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let Some(bytes) = buffer.get(..length) else { return };
        if to.write_all(bytes).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
}

fn main() -> std::io::Result<()> {
    let path = std::env::args_os().nth(1).ok_or_else(|| std::io::Error::other("usage: relay SOCKET"))?;
    let socket = UnixStream::connect(path)?;
    let (reader, writer) = (socket.try_clone()?, socket.try_clone()?);
    let out = std::thread::spawn(move || pump(reader, std::io::stdout()));
    pump(std::io::stdin(), writer);
    socket.shutdown(std::net::Shutdown::Write)?;
    out.join().map_err(|_| std::io::Error::other("the pump broke"))
}
