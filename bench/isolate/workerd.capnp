using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = .main)],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")],
);
const main :Workerd.Worker = (
  compatibilityDate = "2026-01-01",
  compatibilityFlags = ["experimental", "nodejs_compat"],
  modules = [(name = "main.mjs", esModule = embed "workerd-main.mjs")],
  bindings = [(name = "LOADER", workerLoader = ())],
);
