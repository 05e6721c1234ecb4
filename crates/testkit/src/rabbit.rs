//! A RabbitMQ broker for one test, with every way in which a broker goes away.
//!
//! It comes from the system's package (`scripts/setup servers`). Without it [`RabbitServer::start`] gives nothing, and
//! the test says that it was skipped. Each broker has a node name, a port mapper (epmd), a cookie and files of its own,
//! so any number runs side by side. A start takes some seconds: the Erlang machine loads a thousand modules.

use crate::{ports::free_port, server_process::ServerProcess};
use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// On two busy cores a start takes ten seconds, and was seen to take sixty; a crowd of them gets more.
const PATIENCE: Duration = Duration::from_secs(240);
/// A broker that listens sends its first frame at once.
const GREETING: Duration = Duration::from_secs(5);
/// Where packages put the script that starts it; the one on the path refuses to run for others.
const SCRIPTS: [&str; 2] = ["/usr/lib/rabbitmq/bin/rabbitmq-server", "/opt/rabbitmq/sbin/rabbitmq-server"];

/// A running broker. Dropped, it is ended, and its directory removed.
#[derive(Debug)]
pub struct RabbitServer {
    process: ServerProcess,
    /// Tells Erlang nodes where others listen. Ours alone: the system's own would know us after our end.
    port_mapper: ServerProcess,
    script: PathBuf,
    port: u16,
    port_mapper_port: u16,
    distribution_port: u16,
    /// Listens for TLS as well, at this port.
    tls_port: Option<u16>,
}

impl RabbitServer {
    /// `None`: it is not installed; that was said on standard error.
    pub fn start() -> Option<Self> {
        Self::start_with(None)
    }

    /// With TLS beside, see [`Self::tls_url`]. `None` also without openssl, which makes the certificates.
    pub fn start_with_tls() -> Option<Self> {
        if Command::new("openssl").arg("version").output().is_err() {
            eprintln!("SKIPPED: no openssl to make certificates with");
            return None;
        }
        Self::start_with(Some(free_port()))
    }

    fn start_with(tls_port: Option<u16>) -> Option<Self> {
        let Some(script) = SCRIPTS.iter().map(PathBuf::from).find(|script| script.exists()) else {
            eprintln!("SKIPPED: no RabbitMQ (scripts/setup servers installs it)");
            return None;
        };
        let mut server = Self {
            process: ServerProcess::new("rabbit", "rabbitmq"),
            port_mapper: ServerProcess::new("epmd", "rabbitmq"),
            script,
            port: free_port(),
            port_mapper_port: free_port(),
            distribution_port: free_port(),
            tls_port,
        };
        let mut epmd = server.port_mapper.command(Path::new("epmd"));
        epmd.args(["-address", "127.0.0.1", "-port", &server.port_mapper_port.to_string()]);
        server.port_mapper.spawn(epmd);
        let port_mapper_port = server.port_mapper_port;
        server
            .port_mapper
            .wait_until(PATIENCE, || TcpStream::connect(("127.0.0.1", port_mapper_port)).is_ok());
        server.launch();
        Some(server)
    }

    pub fn url(&self) -> String {
        self.url_through(&self.address())
    }

    /// Through a proxy at `address`.
    pub fn url_through(&self, address: &str) -> String {
        format!("amqp://guest:guest@{address}/%2f")
    }

    /// Of a broker that was started with TLS, whose certificate is for this name.
    pub fn tls_url(&self) -> String {
        format!("amqps://guest:guest@localhost:{}/%2f", self.tls_port.expect("it was started with TLS"))
    }

    /// PEM of the authority that signed its certificate.
    pub fn certificate_authority(&self) -> String {
        fs::read_to_string(self.process.directory.join("ca.pem")).expect("it was started with TLS")
    }

    /// Host and port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// As by a power cut, for the broker only.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// After [`Self::kill`]: the same port, the same queues.
    pub fn restart(&mut self) {
        self.launch();
    }

    /// The broker comes back empty, as after its disk was lost.
    pub fn wipe_and_restart(&mut self) {
        self.process.kill();
        fs::remove_dir_all(self.data()).expect("the data can be removed");
        self.launch();
    }

    /// It keeps its connections and answers nothing, like a machine that hangs.
    pub fn pause(&self) {
        self.process.pause();
    }

    pub fn resume(&self) {
        self.process.resume();
    }

    /// What the broker wrote for its administrator.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Runs an Erlang expression in the broker by `rabbitmqctl eval`; its answer. Takes a second or two.
    pub fn eval(&self, expression: &str) -> String {
        let mut command = self.command(&self.script.with_file_name("rabbitmqctl"));
        command.args(["-n", &self.node(), "eval", expression]);
        let answer = command.output().expect("rabbitmqctl runs");
        assert!(answer.status.success(), "{expression}: {}", String::from_utf8_lossy(&answer.stderr));
        String::from_utf8_lossy(&answer.stdout).into_owned()
    }

    fn node(&self) -> String {
        format!("reelyard{}@localhost", self.port)
    }

    fn data(&self) -> PathBuf {
        self.process.directory.join("data")
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = self.process.command(program);
        command.env("ERL_EPMD_PORT", self.port_mapper_port.to_string());
        command.env("ERL_EPMD_ADDRESS", "127.0.0.1");
        command.env("RABBITMQ_CONF_ENV_FILE", "/dev/null");
        command
    }

    /// An authority and, signed by it, a server's certificate for `localhost`.
    fn make_certificates(&self) {
        self.process.file("names", "subjectAltName=DNS:localhost\n");
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        for step in [
            format!("req -x509 {key} -keyout ca.key -out ca.pem -days 30 -subj /CN=test"),
            format!("req {key} -keyout server.key -out server.csr -subj /CN=localhost"),
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 30 -extfile names"
                .to_owned(),
        ] {
            let answer = self.process.command(Path::new("openssl")).args(step.split(' ')).output();
            let answer = answer.expect("openssl runs");
            assert!(answer.status.success(), "openssl {step}: {}", String::from_utf8_lossy(&answer.stderr));
        }
    }

    fn launch(&mut self) {
        let data = self.process.subdirectory("data");
        let logs = self.process.subdirectory("logs");
        let plugins = self.process.file("enabled_plugins", "[].\n");
        let mut settings = format!(
            "listeners.tcp.1 = 127.0.0.1:{}\nlog.console = true\nlog.console.level = info\nlog.file = false\n\
             disk_free_limit.absolute = 50MB\n",
            self.port
        );
        if let Some(port) = self.tls_port {
            self.make_certificates();
            settings.push_str(&format!("listeners.ssl.1 = 127.0.0.1:{port}\n"));
            for (setting, file) in
                [("cacertfile", "ca.pem"), ("certfile", "server.pem"), ("keyfile", "server.key")]
            {
                let path = self.process.directory.join(file);
                settings.push_str(&format!("ssl_options.{setting} = {}\n", path.display()));
            }
            settings.push_str("ssl_options.verify = verify_none\nssl_options.fail_if_no_peer_cert = false\n");
        }
        let settings = self.process.file("rabbitmq.conf", &settings);
        let mut command = self.command(&self.script);
        command
            .env("RABBITMQ_NODENAME", self.node())
            .env("RABBITMQ_MNESIA_BASE", data)
            .env("RABBITMQ_LOG_BASE", logs)
            .env("RABBITMQ_CONFIG_FILE", settings)
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", plugins)
            .env("RABBITMQ_PID_FILE", self.process.directory.join("pid"))
            .env("RABBITMQ_DIST_PORT", self.distribution_port.to_string())
            // Two threads do for a test, and none of them waits by turning.
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "+S 2:2 +A 4 -kernel inet_dist_use_interface {127,0,0,1}",
            )
            // The script becomes the broker instead of watching over it.
            .env("RUNNING_UNDER_SYSTEMD", "true");
        self.process.spawn(command);
        let address = self.address();
        self.process.wait_until(PATIENCE, || greets(&address));
    }
}

/// It answers the protocol's header with its first frame (AMQP 0-9-1, section 4.2.2).
fn greets(address: &str) -> bool {
    let ask = || {
        let mut socket = TcpStream::connect(address).ok()?;
        socket.set_read_timeout(Some(GREETING)).ok()?;
        socket.write_all(b"AMQP\0\0\x09\x01").ok()?;
        let mut kind = [0; 1];
        socket.read_exact(&mut kind).ok()?;
        Some(kind == [1])
    };
    ask().unwrap_or(false)
}
