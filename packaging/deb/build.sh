#!/usr/bin/env bash
# build.sh BINARY BUNDLE x64|arm64: makes dist/microperimeter_VERSION_ARCHITECTURE.deb.
# scripts/package --deb calls it. The binary must not be stripped: that takes the agent out of it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. packaging/stage.sh

command -v dpkg-deb >/dev/null || {
  echo "A Debian package is made by dpkg-deb, which is not here: apt install dpkg" >&2
  exit 1
}
version=$(bin/microperimeter version)
architecture=${3/x64/amd64}
package=dist/microperimeter_${version}_$architecture.deb
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
chmod 755 "$tree"

stage "$tree" "$1" "$2"
install -d "$tree/DEBIAN"
for script in postinst prerm postrm; do
  install -m 755 "packaging/deb/$script" "$tree/DEBIAN/$script"
done
echo /etc/microperimeter/config.yaml >"$tree/DEBIAN/conffiles"
kilobytes=$(du -sk --exclude=DEBIAN "$tree" | cut -f1)
sed -e "s/@VERSION@/$version/" -e "s/@ARCHITECTURE@/$architecture/" \
  -e "s/@KILOBYTES@/$kilobytes/" packaging/deb/control >"$tree/DEBIAN/control"
# A twentieth of the time of xz for a fifth more; whoever has Linux 6.6 has a dpkg that reads it.
dpkg-deb --root-owner-group -Zzstd -z3 --build "$tree" "$package" >/dev/null
ls -sh "$package"
