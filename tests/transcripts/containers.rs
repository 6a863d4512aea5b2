//! Containers, from `run` to `rm`.

use expect_test::expect;

use crate::support::Session;

#[test]
fn none_there() {
    Session::new().transcript(expect![[r#"
        $ kiln ps
        CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES
        $ kiln container ls
        CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES
        $ kiln ps -aq
        $ kiln ps --format json
        $ kiln start nothing
        2> error: no such container: nothing
        2> hint: `kiln ps -a` lists what there is
        [exit code 1]
        $ kiln container start nothing
        2> error: no such container: nothing
        2> hint: `kiln ps -a` lists what there is
        [exit code 1]
        $ kiln exec nothing true
        2> error: no such container: nothing
        2> hint: `kiln ps -a` lists what there is
        [exit code 1]
        $ kiln container exec nothing true
        2> error: no such container: nothing
        2> hint: `kiln ps -a` lists what there is
        [exit code 1]
        $ kiln diff nothing
        2> error: no such container: nothing
        2> hint: `kiln ps -a` lists what there is
        [exit code 1]
        $ kiln container diff nothing
        2> error: no such container: nothing
        2> hint: `kiln ps -a` lists what there is
        [exit code 1]
        $ kiln commit nothing
        2> error: no such container: nothing
        2> hint: `kiln ps -a` lists what there is
        [exit code 1]
        $ kiln container commit nothing
        2> error: no such container: nothing
        2> hint: `kiln ps -a` lists what there is
        [exit code 1]
        $ kiln cp nothing:/etc .
        2> error: no such container: nothing
        2> hint: `kiln ps -a` lists what there is
        [exit code 1]
        $ kiln container cp nothing:/etc .
        2> error: no such container: nothing
        2> hint: `kiln ps -a` lists what there is
        [exit code 1]
        $ kiln rm nothing
        2> error: no such container: nothing
        2> hint: `kiln ps -a` lists what there is
        [exit code 1]
        $ kiln rm -f nothing
        $ kiln container rm nothing
        2> error: no such container: nothing
        2> hint: `kiln ps -a` lists what there is
        [exit code 1]
        $ kiln rename nothing something
        2> error: no such container: nothing
        2> hint: `kiln ps -a` lists what there is
        [exit code 1]
        $ kiln container rename nothing something
        2> error: no such container: nothing
        2> hint: `kiln ps -a` lists what there is
        [exit code 1]
        $ kiln stop nothing
        2> error: no such container: nothing
        2> hint: `kiln ps -a` lists what there is
        [exit code 1]
        $ kiln container stop nothing
        2> error: no such container: nothing
        2> hint: `kiln ps -a` lists what there is
        [exit code 1]
        $ kiln kill nothing
        2> error: no such container: nothing
        2> hint: `kiln ps -a` lists what there is
        [exit code 1]
        $ kiln container kill nothing
        2> error: no such container: nothing
        2> hint: `kiln ps -a` lists what there is
        [exit code 1]
        $ kiln pause nothing
        2> error: no such container: nothing
        2> hint: `kiln ps -a` lists what there is
        [exit code 1]
        $ kiln container pause nothing
        2> error: no such container: nothing
        2> hint: `kiln ps -a` lists what there is
        [exit code 1]
        $ kiln unpause nothing
        2> error: no such container: nothing
        2> hint: `kiln ps -a` lists what there is
        [exit code 1]
        $ kiln container unpause nothing
        2> error: no such container: nothing
        2> hint: `kiln ps -a` lists what there is
        [exit code 1]
        $ kiln wait nothing
        2> error: no such container: nothing
        2> hint: `kiln ps -a` lists what there is
        [exit code 1]
        $ kiln container wait nothing
        2> error: no such container: nothing
        2> hint: `kiln ps -a` lists what there is
        [exit code 1]
        $ kiln logs nothing
        2> error: no such container: nothing
        2> hint: `kiln ps -a` lists what there is
        [exit code 1]
        $ kiln container logs nothing
        2> error: no such container: nothing
        2> hint: `kiln ps -a` lists what there is
        [exit code 1]
        $ kiln export nothing
        2> error: no such container: nothing
        2> hint: `kiln ps -a` lists what there is
        [exit code 1]
        $ kiln container export nothing
        2> error: no such container: nothing
        2> hint: `kiln ps -a` lists what there is
        [exit code 1]
        $ kiln inspect --type container nothing
        []
        2> error: no such container: nothing
        2> hint: `kiln ps -a` lists what there is
        [exit code 1]
        $ kiln container inspect nothing
        []
        2> error: no such container: nothing
        2> hint: `kiln ps -a` lists what there is
        [exit code 1]
        $ kiln container prune
        Total reclaimed space: 0B
        $ kiln container prune --filter colour=red
        2> error: invalid filter "colour=red"
        2> hint: the filters are until=TIME, label=NAME[=VALUE] and label!=NAME[=VALUE]
        [exit code 2]
    "#]]);
}

#[test]
fn run_in_the_foreground() {
    Session::with_busybox().transcript(expect![[r#"
        $ kiln run busybox echo hello
        hello
        $ kiln run --rm busybox sh -c 'echo out; echo err >&2; exit 3'
        out
        2> err
        [exit code 3]
        $ kiln container run --rm busybox true
        $ kiln container run --rm busybox false
        [exit code 1]
        $ kiln run --rm busybox no-such-program
        2> error: exec "no-such-program": no such file in the image
        [exit code 127]
        $ kiln run --rm busybox /etc
        2> error: exec "/etc": permission denied (is it executable?)
        [exit code 126]
        $ kiln run --rm --pull never nothing
        2> error: no such image: nothing
        2> hint: `kiln images` lists what there is; `kiln pull nothing` fetches it
        [exit code 125]
        $ kiln run --rm --user nobdy busybox true
        2> error: no user "nobdy" in the image's /etc/passwd
        2> hint: did you mean "nobody"?
        [exit code 125]
        $ kiln run --rm --workdir relative busybox true
        2> error: the working directory "relative" must be an absolute path
        [exit code 125]
        $ kiln run --rm -v /no/such/place:/data busybox true
        2> error: invalid -v "/no/such/place:/data": /no/such/place is not there, and cannot be made: Permission denied (os error 13)
        [exit code 125]
        $ kiln run --rm -v data:/data busybox true
        2> error: invalid -v "data:/data": kiln has no volumes: the source is a path, which begins with / or .
        [exit code 125]
        $ kiln run --rm --env-file missing busybox true
        2> error: cannot read missing: No such file or directory (os error 2)
        [exit code 125]
        $ kiln run --rm -it busybox sh
        2> error: the input device is not a TTY
        2> hint: leave -t out where input comes from a file or a pipe
        [exit code 1]
        $ kiln run --rm -p 8080:80 busybox true
        2> error: --publish is not possible
        2> hint: the network is the host's: a port that is listened on is there already
        [exit code 125]
        $ kiln run --rm --privileged busybox true
        2> error: --privileged is not possible
        2> hint: a container never gets more rights than your user has
        [exit code 125]
        $ echo words | kiln run --rm -i busybox wc -w
        1
        $ kiln run --nme web busybox true
        2> error: unexpected argument '--nme' found
        2>
        2>   tip: a similar argument exists: '--name'
        2>   tip: to pass '--nme' as a value, use '-- --nme'
        2>
        2> Usage: kiln run --name <NAME> <IMAGE> [COMMAND]...
        2>
        2> For more information, try '--help'.
        [exit code 2]
        $ kiln ps -a --format '{{.Image}} {{.Status}}'
        busybox Exited (0) moments ago
    "#]]);
}

#[test]
fn made_by_hand_and_committed() {
    Session::with_busybox().transcript(expect![[r#"
        $ kiln create --name work busybox sh -c 'echo data > /srv-data; rm /bin/wc'
        1111111111111111111111111111111111111111111111111111111111111111
        $ kiln create --name work busybox true
        2> error: the container name "work" is already in use by container 111111111111
        2> hint: choose another, or remove that container first: kiln rm 111111111111
        [exit code 1]
        $ kiln create --pull never no-such-image:of-mine
        2> error: no such image: no-such-image:of-mine
        2> hint: `kiln images` lists what there is; `kiln pull no-such-image:of-mine` fetches it
        [exit code 1]
        $ kiln create 127.0.0.1:9/mine
        2> 127.0.0.1:9/mine:latest is not in the store: pulling it
        2> error: 127.0.0.1:9/mine: manifest latest: can't connect: Connection refused (os error 111)
        2> hint: check the name and port, and that 127.0.0.1:9 can be reached from here (HTTP_PROXY, HTTPS_PROXY and NO_PROXY are respected)
        [exit code 1]
        $ kiln container create --name 'no name' busybox
        2> error: invalid container name "no name"
        2> hint: a name has letters, digits, and after the first of them also _ . and -
        [exit code 1]
        $ kiln ps
        CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES
        $ kiln ps -a
        CONTAINER ID   IMAGE     COMMAND                  CREATED       STATUS    PORTS     NAMES
        111111111111   busybox   "sh -c echo data > /…"   moments ago   Created             work
        $ kiln diff work
        $ kiln container create --name other busybox true
        2222222222222222222222222222222222222222222222222222222222222222
        $ kiln container rename other another
        $ kiln container rm another
        another
        $ kiln start work
        work
        $ kiln start -a work
        2> rm: can't remove '/bin/wc': No such file or directory
        [exit code 1]
        $ kiln container diff work
        C /bin
        D /bin/wc
        A /srv-data
        $ kiln exec work true
        2> error: container work is not running
        2> hint: start it first: kiln start work
        [exit code 1]
        $ echo mine > mine.txt
        $ kiln cp mine.txt work:/srv/
        2> error: the destination directory /srv/ must exist
        [exit code 1]
        $ kiln cp mine.txt work:/mine.txt
        2> Successfully copied to work:/mine.txt
        $ kiln cp work:/srv-data data.txt && cat data.txt
        data
        2> Successfully copied to data.txt
        $ kiln container cp -q work:/srv-data again.txt
        $ kiln container cp work:/missing .
        2> error: could not find the file /missing in container work
        [exit code 1]
        $ kiln cp missing work:/
        2> error: cannot read missing: No such file or directory (os error 2)
        [exit code 1]
        $ kiln cp mine.txt other.txt
        2> error: must specify at least one container source
        2> hint: one of the two is CONTAINER:PATH
        [exit code 1]
        $ kiln commit -m 'by hand' -a ann -c 'CMD ["cat", "/srv-data"]' work mine
        sha256:3333333333333333333333333333333333333333333333333333333333333333
        $ kiln container commit work
        sha256:4444444444444444444444444444444444444444444444444444444444444444
        $ kiln container commit work Mine
        2> error: invalid image reference "Mine": invalid reference format
        2> hint: repositories have no capitals in their names; tags may
        [exit code 1]
        $ kiln commit -c 'RUN true' work mine
        2> error: cannot apply the change "RUN true": RUN does not change the config alone
        2> hint: what does is CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, SHELL, STOPSIGNAL, USER, VOLUME and WORKDIR
        [exit code 1]
        $ kiln run --rm mine
        data
        $ kiln history mine
        IMAGE          CREATED       CREATED BY                                SIZE      COMMENT
        333333333333   moments ago   sh -c echo data > /srv-data; rm /bin/wc   10B       by hand
        <missing>      moments ago   base image of kiln's tests                1.09MB
        $ kiln rename work job
        $ kiln container rename job job
        2> error: the container has the name "job" already
        [exit code 1]
        $ kiln export job | tar t mine.txt srv-data
        mine.txt
        srv-data
        $ kiln container export job | tar t srv-data
        srv-data
        $ kiln container export -o /no/such/place.tar job
        2> error: cannot write /no/such/place.tar: No such file or directory (os error 2)
        [exit code 1]
        $ kiln container inspect --format '{{.Name}} {{.State.Status}} {{.State.ExitCode}}' job
        /job exited 1
        $ kiln inspect --format '{{.State.Colour}}' job
        2> error: invalid template: there is no field .Colour
        2> hint: the fields are Dead, Error, ExitCode, FinishedAt, OOMKilled, Paused, Pid, Restarting, Running, StartedAt, Status
        [exit code 1]
        $ kiln rmi busybox
        2> error: unable to delete 555555555555 (must be forced) - image is being used by stopped container 111111111111
        2> hint: remove it first: kiln rm 111111111111
        [exit code 1]
        $ kiln rm job
        job
        $ kiln container rm job
        2> error: no such container: job
        2> hint: `kiln ps -a` lists what there is
        [exit code 1]
        $ kiln container prune -f
        Total reclaimed space: 0B
        $ kiln ps -a
        CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES
    "#]]);
}

#[test]
fn in_the_background() {
    Session::with_busybox().transcript(expect![[r#"
        $ kiln run -d --name web busybox sh -c 'echo ready; trap "echo bye; exit 5" TERM; while :; do sleep 0.05; done'
        1111111111111111111111111111111111111111111111111111111111111111
        $ kiln run -d --name web busybox true
        2> error: the container name "web" is already in use by container 111111111111
        2> hint: choose another, or remove that container first: kiln rm 111111111111
        [exit code 125]
        $ until kiln logs web | grep ready; do sleep 0.05; done
        ready
        $ kiln ps
        CONTAINER ID   IMAGE     COMMAND                  CREATED       STATUS       PORTS     NAMES
        111111111111   busybox   "sh -c echo ready; t…"   moments ago   Up moments             web
        $ kiln container ls -q
        111111111111
        $ kiln ps --filter status=running --format '{{.Names}}: {{.Status}}'
        web: Up moments
        $ kiln ps --filter colour=red
        2> error: invalid filter "colour=red"
        2> hint: the filters are name=TEXT, id=ID, status=created|running|paused|exited, exited=CODE, ancestor=IMAGE, label=NAME[=VALUE], label!=NAME[=VALUE], before=CONTAINER and since=CONTAINER
        [exit code 2]
        $ kiln exec web echo inside
        inside
        $ kiln container exec -w /bin web pwd
        /bin
        $ kiln exec -w /srv web pwd
        2> error: chdir(/srv): No such file or directory
        [exit code 125]
        $ kiln container exec web sh -c 'exit 4'
        [exit code 4]
        $ kiln exec web no-such-program
        2> error: exec "no-such-program": no such file in the image
        [exit code 127]
        $ kiln pause web
        web
        $ kiln container pause web
        2> error: container web is paused
        2> hint: let it go on first: kiln unpause web
        [exit code 1]
        $ kiln exec web true
        2> error: container web is paused
        2> hint: let it go on first: kiln unpause web
        [exit code 1]
        $ kiln ps --format '{{.Status}}'
        Up moments (Paused)
        $ kiln unpause web
        web
        $ kiln container pause web
        web
        $ kiln container unpause web
        web
        $ kiln unpause web
        2> error: container web is not paused
        [exit code 1]
        $ kiln start web
        web
        $ kiln rm web
        2> error: container web is running
        2> hint: stop it first: kiln stop web
        [exit code 1]
        $ kiln kill --signal NOPE web
        2> error: invalid signal "NOPE"
        [exit code 1]
        $ kiln kill --signal CONT web
        web
        $ kiln stop web
        web
        $ kiln container stop web
        web
        $ kiln wait web
        5
        $ kiln container wait web
        5
        $ kiln logs web
        ready
        bye
        $ kiln container logs --tail 1 web
        bye
        $ kiln logs --tail many web
        2> error: --tail "many" is neither a number nor all
        [exit code 2]
        $ kiln kill web
        2> error: container web is not running
        [exit code 1]
        $ kiln ps -a
        CONTAINER ID   IMAGE     COMMAND                  CREATED       STATUS                   PORTS     NAMES
        111111111111   busybox   "sh -c echo ready; t…"   moments ago   Exited (5) moments ago             web
        $ kiln container start web
        web
        $ kiln container kill web
        web
        $ kiln wait web
        137
        $ kiln run -d busybox no-such-program
        2> error: exec "no-such-program": no such file in the image
        [exit code 127]
        $ kiln rm -f web
        web
        $ kiln container prune -f
        Deleted Containers:
        2222222222222222222222222222222222222222222222222222222222222222

        Total reclaimed space: 0B
    "#]]);
}
