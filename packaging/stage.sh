# Sourced by deb/build.sh and rpm/build.sh: what both packages hold.

# stage TREE BINARY BUNDLE: the files of the package below TREE. What the agent says of itself is
# asked of the checkout, since the binary may be for another processor.
stage() {
  local tree=$1 doc=$1/usr/share/doc/microperimeter binary=$2 bundle=$3
  install -D -m 755 "$binary" "$tree/usr/bin/microperimeter"
  install -d "$tree/usr/lib/systemd/system"
  install -m 644 packaging/systemd/* "$tree/usr/lib/systemd/system"
  install -D -m 640 packaging/config.yaml "$tree/etc/microperimeter/config.yaml"

  install -d "$tree/usr/share/man/man1"
  bin/microperimeter man | gzip -9n >"$tree/usr/share/man/man1/microperimeter.1.gz"
  local completions=$tree/usr/share
  install -d "$completions/bash-completion/completions" "$completions/zsh/site-functions" \
    "$completions/fish/vendor_completions.d"
  bin/microperimeter completion bash >"$completions/bash-completion/completions/microperimeter"
  bin/microperimeter completion zsh >"$completions/zsh/site-functions/_microperimeter"
  bin/microperimeter completion fish >"$completions/fish/vendor_completions.d/microperimeter.fish"

  install -d "$doc"
  install -m 644 README.md SECURITY.md docs/*.md "$doc"
  install -m 644 LICENSE "$doc/copyright"
  install -m 644 "$bundle/third-party-licenses.txt" "$doc"
  install -m 644 "$binary.cdx.json" "$doc/microperimeter.cdx.json"
  # Whatever umask this is run under.
  find "$tree/usr" -type d -exec chmod 755 {} +
  find "$tree/usr/share" -type f -exec chmod 644 {} +
  chmod 755 "$tree/etc"
}
