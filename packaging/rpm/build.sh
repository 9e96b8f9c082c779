#!/usr/bin/env bash
# build.sh BINARY BUNDLE x64|arm64: makes dist/microperimeter-VERSION-1.ARCHITECTURE.rpm.
# scripts/package --rpm calls it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. packaging/stage.sh

command -v rpmbuild >/dev/null || {
  echo "An RPM is made by rpmbuild, which is not here: apt install rpm (dnf: rpm-build)" >&2
  exit 1
}
version=$(bin/microperimeter version)
case $3 in x64) architecture=x86_64 ;; arm64) architecture=aarch64 ;; esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
stage "$work/staged" "$1" "$2"
rpmbuild -bb --quiet --target "$architecture" \
  --define "_topdir $work/rpm" --define "_rpmdir $work/out" \
  --define "packaged $version" --define "staged $work/staged" \
  --define "_binary_payload w3.zstdio" packaging/rpm/microperimeter.spec
package=$(find "$work/out" -name '*.rpm')
cp "$package" dist/
ls -sh "dist/$(basename "$package")"
