# shellcheck shell=bash
# Makes a fresh checkout ready to run: checks the machine, installs what is missing, builds.
# Sourced by the programs beside it, which then call `bootstrap` with the Debian packages they need:
#
#   . "$(dirname "${BASH_SOURCE[0]}")/bootstrap.sh"
#   bootstrap iproute2 tcpdump
#
# Prints one line for each thing it does and nothing for what is already there. Needs a network only
# for what is missing. Output of the commands it runs is shown only when they fail.

bootstrap_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bootstrap_node_major=20
bootstrap_node_minor=11
bootstrap_sources=/etc/apt/sources.list.d
# What packages ask before they start a service (Debian's policy-rc.d).
bootstrap_guard=/usr/sbin/policy-rc.d
# `su` and some desktops leave these out of PATH, and half of what we need lives there.
PATH=$PATH:/usr/sbin:/sbin

bootstrap() {
  bootstrap_linux
  bootstrap_superuser
  bootstrap_node
  bootstrap_packages "$@"
  bootstrap_modules
  bootstrap_build
}

bootstrap_fail() {
  printf '%s\n' "$@" >&2
  exit 1
}

# Run a command silently; show what it said, and stop with the sentence, when it fails.
bootstrap_quietly() {
  local sentence=$1 output
  shift
  output=$("$@" 2>&1 </dev/null) || bootstrap_fail "$output" "$sentence"
}

bootstrap_linux() {
  [ "$(uname -s)" = Linux ] ||
    bootstrap_fail "This runs on Linux only: network namespaces, TUN devices and eBPF are needed."
}

bootstrap_superuser() {
  [ "$(id -u)" = 0 ] || bootstrap_fail \
    "Root is needed for network namespaces, TUN devices and eBPF: run with sudo." \
    "Without root, \`npm ci && npm run check\` does everything that does not need it."
}

bootstrap_node() {
  local wanted=$bootstrap_node_major.$bootstrap_node_minor version major minor how
  how="Install Node from https://nodejs.org/en/download, https://github.com/nodesource/distributions
or with nvm. \`apt install nodejs npm\` serves where it brings $wanted or newer (Debian 13, Ubuntu
26.04); Debian 12 and Ubuntu 24.04 bring 18, which is too old."
  command -v node >/dev/null || bootstrap_fail \
    "Node $wanted or newer is needed, and there is no node in PATH." \
    "If your own shell finds one, sudo has another PATH: try sudo env \"PATH=\$PATH\" $0" "$how"
  version=$(node --version)
  version=${version#v}
  IFS=. read -r major minor _ <<<"$version"
  ((major * 1000 + minor >= bootstrap_node_major * 1000 + bootstrap_node_minor)) ||
    bootstrap_fail "Node $wanted or newer is needed; $(command -v node) is $version." "$how"
  command -v npm >/dev/null || bootstrap_fail "npm is needed, and there is none in PATH." "$how"
}

# What proves that a package is there (a command, or a file where it starts with a slash), and what
# it is for. Proofs, not dpkg, so that a tool installed another way counts.
bootstrap_package() {
  case $1 in
  iproute2) echo "ip network namespaces and interfaces" ;;
  iputils-ping) echo "ping reachability in the lab" ;;
  iperf3) echo "iperf3 traffic for throughput" ;;
  tcpdump) echo "tcpdump recordings on the wire" ;;
  tshark) echo "tshark decoding by code that is not ours" ;;
  ethtool) echo "ethtool offload settings of interfaces" ;;
  nftables) echo "nft packet filters in the lab" ;;
  procps) echo "ps processes and sysctl" ;;
  util-linux) echo "nsenter programs inside a namespace" ;;
  openssl) echo "openssl certificates for the test firewall" ;;
  sockperf) echo "sockperf round-trip times" ;;
  fastd) echo "fastd a tunnel to compare with" ;;
  wireguard-go) echo "wireguard-go a tunnel to compare with" ;;
  wireguard-tools) echo "wg setting up that tunnel" ;;
  curl) echo "curl requests through the tunnel" ;;
  suricata) echo "suricata a firewall that is not ours" ;;
  dnsmasq-base) echo "dnsmasq answers to DNS requests" ;;
  nginx) echo "nginx a proxy in front of a collector" ;;
  python3-opentelemetry-proto)
    echo "/usr/lib/python3/dist-packages/opentelemetry/proto definitions of telemetry's messages"
    ;;
  openssh-server) echo "/usr/sbin/sshd an SSH server" ;;
  openssh-client) echo "ssh an SSH client" ;;
  sip-tester) echo "sipp calls by SIP" ;;
  mtr-tiny) echo "mtr hops of a path" ;;
  nghttp2-client) echo "h2load many requests by HTTP/2" ;;
  rsync | traceroute) echo "$1 traffic as it is" ;;
  bind9-dnsutils) echo "dig DNS requests" ;;
  libpcap-dev) echo "/usr/include/pcap.h the optional capture modules" ;;
  nfs-ganesha) echo "ganesha.nfsd an NFS server" ;;
  nfs-ganesha-vfs)
    echo "/usr/share/doc/nfs-ganesha-vfs/copyright files for it to serve"
    ;;
  libnfs-utils) echo "nfs-cp an NFS client" ;;
  python3-seccomp)
    echo "/usr/share/doc/python3-seccomp/copyright filters of system calls, as systemd has them"
    ;;
  rpm) echo "rpmbuild RPM packages" ;;
  chromium) echo "chromium a browser for the status page" ;;
  prometheus) echo "promtool rules and metrics as Prometheus reads them" ;;
  ansible-lint | yamllint) echo "$1 lint of the recipes in packaging/" ;;
  qemu-system-x86) echo "qemu-system-x86_64 machines with other kernels" ;;
  qemu-system-arm) echo "qemu-system-aarch64 machines with another processor" ;;
  busybox-static) echo "/usr/share/doc/busybox-static/copyright their first process" ;;
  cpio) echo "cpio its file system" ;;
  kmod) echo "depmod modules of their kernels" ;;
  mandoc) echo "mandoc a lint of the manual page" ;;
  python3 | make) echo "$1 building optional native modules" ;;
  g++) echo "g++ building optional native modules" ;;
  *) echo "$1 a tool of this script" ;;
  esac
}

bootstrap_packages() {
  local package proof reason missing=()
  for package in "$@"; do
    read -r proof reason < <(bootstrap_package "$package")
    case $proof in
    /*) [ -e "$proof" ] && continue ;;
    *) command -v "$proof" >/dev/null && continue ;;
    esac
    missing+=("$package")
    echo "missing: $package ($reason)"
  done
  ((${#missing[@]})) || return 0
  command -v apt-get >/dev/null || bootstrap_fail \
    "Only apt-get is known here. Install with this system's package manager: ${missing[*]}"
  bootstrap_update
  local ordinary=() newer=()
  for package in "${missing[@]}"; do
    if bootstrap_knows "$package"; then ordinary+=("$package"); else newer+=("$package"); fi
  done
  ((${#ordinary[@]} == 0)) || bootstrap_install "" "${ordinary[@]}"
  ((${#newer[@]} == 0)) || bootstrap_backports "${newer[@]}"
}

# A failing update is not the end: the lists at hand may do. The install has the last word.
bootstrap_update() {
  apt-get -qq -o DPkg::Lock::Timeout=120 update >/dev/null 2>&1 || true
}

# Whether apt has this package elsewhere than in backports.
bootstrap_knows() {
  apt-cache madison "$1" 2>/dev/null | grep -v -e -backports/ | grep -q .
}

# What the release itself does not have may be in its backports. apt takes nothing from there unless
# it is asked by name, so the host's other packages stay as they are.
bootstrap_backports() {
  local id name suite mirror file package
  read -r id name < <(bootstrap_release)
  suite=$name-backports
  file=$bootstrap_sources/microperimeter-backports.list
  if [ "$id" = debian ] && ! bootstrap_has_suite "$suite"; then
    mirror=$(apt-get indextargets --format "\$(REPO_URI) \$(CODENAME)" "Created-By: Packages" |
      awk -v name="$name" '$2 == name { print $1; exit }')
    echo "adding a source of packages: $suite, for $*"
    echo "  (rm $file takes it away again)"
    echo "deb ${mirror:-http://deb.debian.org/debian} $suite main" >"$file"
    bootstrap_update
  fi
  for package in "$@"; do
    bootstrap_in_suite "$package" "$suite" || bootstrap_fail \
      "apt knows no package $package: Debian 12 has it in bookworm-backports, Debian 13 in main," \
      "Ubuntu in universe (add-apt-repository universe). Install it by hand and run this again."
  done
  bootstrap_install "$suite" "$@"
}

# The system's name and that of its release, such as `debian bookworm`.
bootstrap_release() {
  # shellcheck disable=SC1091
  (. /etc/os-release && echo "$ID ${VERSION_CODENAME:-unknown}")
}

bootstrap_has_suite() {
  apt-get indextargets --format "\$(CODENAME)" | grep -qx "$1"
}

bootstrap_in_suite() {
  apt-cache madison "$1" 2>/dev/null | grep -q " $2/"
}

# Servers are for the tests, not for this host: none is started now or at the next boot.
# $1: the suite to install from; empty: the release's own.
bootstrap_install() {
  local suite=$1 before sentence
  shift
  echo "installing with apt-get${suite:+ from $suite}: $*"
  export DEBIAN_FRONTEND=noninteractive
  sentence="apt-get could not install: $*. The lines above say why."
  before=$(bootstrap_units)
  (
    if [ ! -e "$bootstrap_guard" ]; then
      trap 'rm -f "$bootstrap_guard"' EXIT
      printf '#!/bin/sh\nexit 101\n' >"$bootstrap_guard"
      chmod 755 "$bootstrap_guard"
    fi
    bootstrap_quietly "$sentence" apt-get -y -o DPkg::Lock::Timeout=120 \
      install --no-install-recommends ${suite:+-t "$suite"} "$@"
  ) || exit 1
  command -v systemctl >/dev/null || return 0
  comm -13 <(echo "$before") <(bootstrap_units) | xargs -r systemctl -q disable 2>/dev/null || true
}

bootstrap_units() {
  find /lib/systemd/system/ -maxdepth 1 -name '*.service' -printf '%f\n' 2>/dev/null | sort
}

# Run as the owner of the checkout, so that `sudo scripts/test` leaves no files of root's in it.
# An owner without a home of his own (a system's account, a number without a name) is no person to
# surprise, and npm needs a home: then as root.
bootstrap_as_owner() {
  local owner home
  owner=$(stat -c %U "$bootstrap_root")
  home=$(getent passwd "$owner" | cut -d: -f6) || true
  if [ "$owner" != root ] && runuser -u "$owner" -- test -w "$home" 2>/dev/null; then
    runuser -u "$owner" -- env HOME="$home" PATH="$PATH" "$@"
  else
    "$@"
  fi
}

# The stamp is the lock file and the ABI of node, for which native modules were built.
bootstrap_modules() {
  local modules=$bootstrap_root/node_modules stamp
  # A link leads to modules that belong to another checkout: not ours to replace.
  [ -L "$modules" ] && return 0
  stamp="$(sha256sum <"$bootstrap_root/package-lock.json") $(node -p process.versions.modules)"
  [ -e "$modules/.stamp" ] && [ "$(cat "$modules/.stamp")" = "$stamp" ] && return 0
  echo "installing node modules: npm ci"
  bootstrap_quietly "npm ci failed: it needs the npm registry, once." \
    bootstrap_as_owner npm ci --prefix "$bootstrap_root" --no-audit --no-fund --prefer-offline
  bootstrap_as_owner tee "$modules/.stamp" <<<"$stamp" >/dev/null
}

# Always: it takes less than a second.
bootstrap_build() {
  echo "building: tsc"
  bootstrap_quietly "The sources do not compile." \
    bootstrap_as_owner "$bootstrap_root/node_modules/.bin/tsc" -p "$bootstrap_root"
}
