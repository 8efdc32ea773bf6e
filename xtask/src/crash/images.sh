# Archives of small images in $1, some of which share layers: NAME.tar is the image NAME:latest.
cd "$1"
layer() { # NAME DIRECTORIES FILES LINES: a layer of so many directories with so many files of so many lines
    local directory file
    mkdir "$1"
    for ((directory = 0; directory < $2; directory++)); do
        mkdir -p "$1/$1/$directory"
        for ((file = 0; file < $3; file++)); do
            seq "$((directory * 1000 + file))" "$((directory * 1000 + file + $4))" > "$1/$1/$directory/$file"
        done
        ln "$1/$1/$directory/0" "$1/$1/$directory/linked"
        ln -s 0 "$1/$1/$directory/link"
    done
    tar -C "$1" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf "$1.layer" .
}
image() { # NAME LAYER...: a docker-archive
    local name=$1 layer diff_ids= files=
    shift
    for layer; do
        diff_ids+=",\"sha256:$(sha256sum < "$layer.layer" | cut -d' ' -f1)\""
        files+=",\"$layer.layer\""
    done
    printf '{"architecture":"%s","os":"linux","config":{"Cmd":["/%s"]},"rootfs":{"type":"layers","diff_ids":[%s]}}' \
        "$(dpkg --print-architecture)" "$name" "${diff_ids#,}" > config.json
    printf '[{"Config":"config.json","RepoTags":["%s:latest"],"Layers":[%s]}]' "$name" "${files#,}" > manifest.json
    tar -cf "$name.tar" manifest.json config.json "${@/%/.layer}"
}
layer base 6 8 400
layer left 2 4 2000
layer right 3 20 10
layer alone 2 60 20
layer late 1 3 5000
image first base left
image second base right
image third alone
image again base late
# The same name, another image.
image third alone late
mv third.tar third-later.tar
image third alone
rm -r -- *.layer config.json manifest.json base left right alone late
