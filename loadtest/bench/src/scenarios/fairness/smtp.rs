//! A mail server (RFC 5321) that accepts and discards every mail, after a delay.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};

/// Accepts connections until the process ends.
///
/// # Errors
/// Where it cannot listen on this address.
pub(crate) async fn serve(listen: SocketAddr, delay: Duration) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        // A broken connection ends only its own task.
        tokio::spawn(async move { converse(stream, delay).await.ok() });
    }
}

async fn converse(stream: TcpStream, delay: Duration) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    writer.write_all(b"220 bench\r\n").await?;
    let mut in_mail = false;
    while let Some(line) = lines.next_line().await? {
        if in_mail {
            if line == "." {
                in_mail = false;
                tokio::time::sleep(delay).await;
                writer.write_all(b"250 taken\r\n").await?;
            }
            continue;
        }
        let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        let answer: &[u8] = match verb.as_str() {
            "DATA" => {
                in_mail = true;
                b"354 go on\r\n"
            }
            "QUIT" => return writer.write_all(b"221 bye\r\n").await,
            _ => b"250 bench\r\n",
        };
        writer.write_all(answer).await?;
    }
    Ok(())
}
