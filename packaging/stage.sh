# Sourced by deb/build.sh and rpm/build.sh: what both packages hold.

# stage TREE: the files of the package below TREE.
stage() {
  local tree=$1 doc=$1/usr/share/doc/microperimeter binary=dist/microperimeter
  install -D -m 755 "$binary" "$tree/usr/bin/microperimeter"
  install -d "$tree/usr/lib/systemd/system"
  install -m 644 packaging/systemd/* "$tree/usr/lib/systemd/system"
  install -D -m 640 packaging/config.yaml "$tree/etc/microperimeter/config.yaml"

  install -d "$tree/usr/share/man/man1"
  "$binary" man | gzip -9n >"$tree/usr/share/man/man1/microperimeter.1.gz"
  local completions=$tree/usr/share
  install -d "$completions/bash-completion/completions" "$completions/zsh/site-functions" \
    "$completions/fish/vendor_completions.d"
  "$binary" completion bash >"$completions/bash-completion/completions/microperimeter"
  "$binary" completion zsh >"$completions/zsh/site-functions/_microperimeter"
  "$binary" completion fish >"$completions/fish/vendor_completions.d/microperimeter.fish"

  install -d "$doc"
  install -m 644 README.md SECURITY.md docs/*.md "$doc"
  install -m 644 LICENSE "$doc/copyright"
  install -m 644 dist/bundle/third-party-licenses.txt dist/microperimeter.cdx.json "$doc"
  # Whatever umask this is run under.
  find "$tree/usr" -type d -exec chmod 755 {} +
  find "$tree/usr/share" -type f -exec chmod 644 {} +
  chmod 755 "$tree/etc"
}
