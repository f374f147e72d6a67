//! A connection that is no longer HTTP: bytes both ways, until both sides have ended.

use std::io;

use crate::buffer::Buffer;
use crate::io::Io;
use crate::timer::Timer;

/// A side: its connection and what was read from it.
type Side<'a> = (&'a Io, &'a mut Buffer);

/// Moves bytes between both sides. Ends when both have ended, when one breaks, or at the deadline, which every byte
/// moves.
pub async fn tunnel(client: Side<'_>, server: Side<'_>, timer: &Timer) {
    let ((client, from_client), (server, from_server)) = (client, server);
    client.keep_alive();
    server.keep_alive();
    let up = one_way(client, from_client, server, timer);
    let down = one_way(server, from_server, client, timer);
    let _ = timer.limit(async { tokio::try_join!(up, down) }).await;
}

async fn one_way(from: &Io, buffer: &mut Buffer, to: &Io, timer: &Timer) -> io::Result<()> {
    loop {
        if buffer.is_empty() && from.read(buffer).await? == 0 {
            return to.shutdown().await;
        }
        to.write_all(buffer.filled()).await?;
        buffer.consume(buffer.len());
        timer.progress();
    }
}
