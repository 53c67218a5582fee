/**
 * The unit of a service (systemd.service(5), systemd.exec(5), systemd.kill(5)). It is for systemd 247 and
 * later; older ones ignore settings that they do not know, with a warning.
 */
import type { UpgradeRole } from "../../core/protocol/upgrade.ts";

/** What a unit can run. */
export type UnitRole = UpgradeRole | "instance";

/** The first line of units that this program wrote. */
export const MARK = "# Written by `llumnix systemd`";

export interface UnitOptions {
  readonly role: UnitRole;
  /** It starts instances that outlive it: an agent, or `serve --cluster`. */
  readonly hasAgent: boolean;
  /** The words of the command, the first one an absolute path. */
  readonly command: readonly string[];
  /** A unit of `systemctl --user`. */
  readonly user: boolean;
  /** Name without ".service". */
  readonly name: string;
  readonly watchdogSeconds: number;
  /** The service listens on a port below 1024. */
  readonly needsLowPort: boolean;
}

/** Where the unit's environment variables are; `%E` is /etc, or ~/.config of a user. */
export function environmentFile(name: string): string {
  return `%E/llumnix/${name}.env`;
}

/** The text of a unit. */
export function unitText(options: UnitOptions): string {
  const { command, user, name, watchdogSeconds } = options;
  const sections = [
    [
      `${MARK}: change it with \`systemctl edit\`, so that it can be written again.`,
      "[Unit]",
      `Description=Llumnix ${descriptions[options.role]}`,
      "After=network-online.target",
      ...(user ? [] : ["Wants=network-online.target"]),
    ],
    [
      "[Service]",
      "# Ready when it serves; systemd restarts it when it fails or no longer reports. Exit code 2 is a",
      "# mistake in the arguments, which a restart does not mend.",
      "Type=notify",
      `ExecStart=${command.map(quoted).join(" ")}`,
      ...upgradeLines(options),
      "RestartSec=2",
      "RestartPreventExitStatus=2",
      ...(watchdogSeconds > 0 ? [`WatchdogSec=${watchdogSeconds}`] : []),
      "# A start that loads, and a stop that finishes requests, ask for more time while they go on.",
      "TimeoutStartSec=120",
      "TimeoutStopSec=60",
      ...killLines(options),
      "# An instance that runs out of memory is replaced; the others serve on.",
      "OOMPolicy=continue",
      `EnvironmentFile=-${environmentFile(name)}`,
      ...directoryLines(options),
      ...limitLines(),
    ],
    user ? userHardening : systemHardening(options),
    ["[Install]", `WantedBy=${user ? "default.target" : "multi-user.target"}`],
  ];
  return sections.map((lines) => lines.join("\n")).join("\n\n") + "\n";
}

const descriptions: Readonly<Record<UnitRole, string>> = {
  serve: "LLM service",
  manager: "manager and instances",
  "api-server": "API server",
  agent: "agent of this host",
  instance: "instance",
};

/** How another executable takes over, and when systemd starts the service again. */
function upgradeLines({ role }: UnitOptions): string[] {
  if (role === "instance") {
    return [
      "# After the executable was replaced, a restart gives the requests away or finishes them. An instance",
      "# also ends when its manager stops; it then starts again and waits for the next one.",
      "Restart=always",
    ];
  }
  return [
    "# A successor of the executable that is in place now takes over, and no request is interrupted.",
    "ExecReload=/bin/kill -s USR2 $MAINPID",
    "Restart=on-failure",
  ];
}

/** Instances outlive a manager or an agent that fails, and the next one finds them. */
function killLines({ role, hasAgent }: UnitOptions): string[] {
  if (role === "manager") {
    return [
      "# Instances serve on without the manager, and the restarted one finds them. A stop ends them all.",
      "KillMode=process",
    ];
  }
  if (hasAgent) {
    return [
      "# Instances serve on without this process, and the restarted one finds them. A stop lets them give their",
      "# requests away.",
      "KillMode=process",
    ];
  }
  const what = role === "instance"
    ? "gives its requests away, or finishes them"
    : "lets the instances go when their requests have finished";
  return [`# The main process gets the signal, and ${what}.`, "KillMode=mixed"];
}

/**
 * Roles of one host, and those that a user starts by hand, meet in the runtime directory, so it has to
 * outlive each of them. A service of its own has one of its own.
 */
function directoryLines({ role, hasAgent, user, name }: UnitOptions): string[] {
  const isApart = role === "serve" && !hasAgent;
  const meets = !isApart || user;
  return [
    "# Sockets; the unpacked program; log files, and other files that options name; the rest.",
    `RuntimeDirectory=${isApart ? name : "llumnix"}`,
    "RuntimeDirectoryMode=0700",
    ...(meets ? ["RuntimeDirectoryPreserve=yes"] : []),
    "CacheDirectory=llumnix",
    "LogsDirectory=llumnix",
    "LogsDirectoryMode=0700",
    "StateDirectory=llumnix",
    "StateDirectoryMode=0700",
    "WorkingDirectory=%L/llumnix",
    ...(user ? [] : ["Environment=HOME=%S/llumnix XDG_CACHE_HOME=%C/llumnix"]),
  ];
}

function limitLines(): string[] {
  return [
    "# Connections, and memory that devices reach, which is locked.",
    "LimitNOFILE=1048576",
    "LimitMEMLOCK=infinity",
  ];
}

/** What an unprivileged systemd can set. */
const userHardening = ["NoNewPrivileges=yes", "LockPersonality=yes", "UMask=0077"];

/** No MemoryDenyWriteExecute: V8 compiles at run time. No PrivateDevices: it hides the GPUs. */
function systemHardening({ needsLowPort }: UnitOptions): string[] {
  const capability = needsLowPort ? "CAP_NET_BIND_SERVICE" : "";
  return [
    "# A user of its own, made by systemd while the service runs; units with the same user may meet.",
    "DynamicUser=yes",
    "User=llumnix",
    "UMask=0077",
    "NoNewPrivileges=yes",
    `CapabilityBoundingSet=${capability}`,
    ...(needsLowPort ? [`AmbientCapabilities=${capability}`] : []),
    "# Models in home directories can be read if their permissions allow it. Nothing outside the",
    "# directories above can be written.",
    "ProtectSystem=strict",
    "ProtectHome=read-only",
    "PrivateTmp=yes",
    "ProtectKernelTunables=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelLogs=yes",
    "ProtectControlGroups=yes",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "RestrictNamespaces=yes",
    "RestrictSUIDSGID=yes",
    "LockPersonality=yes",
    "SystemCallArchitectures=native",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
    "# GPUs and InfiniBand, and no other devices. The driver makes its device files when it is first",
    "# used by root: enable nvidia-persistenced.service, or run nvidia-smi at boot.",
    "DevicePolicy=closed",
    "DeviceAllow=char-nvidia* rw",
    "DeviceAllow=char-infiniband* rw",
  ];
}

/**
 * A word of a command line, as systemd.service(5) and systemd.syntax(7) quote it: specifiers (%) and
 * variables ($) are not expanded.
 */
export function quoted(word: string): string {
  const text = word.replaceAll("\\", "\\\\").replaceAll("%", "%%").replaceAll("$", "$$$$");
  if (/^[^\s"';]+$/.test(text)) return text;
  return `"${text.replaceAll('"', '\\"').replaceAll("\n", "\\n").replaceAll("\t", "\\t")}"`;
}
