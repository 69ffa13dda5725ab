#!/bin/busybox sh
# The first and only program of the test's Linux guest. The kernel's command line says what it does with the ext4 file system on its disk:
#   work=write   writes numbered files for ever, each made durable before the next, and says so on the console
#   work=read    checks all files that there are, and says up to which number they are whole
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module" || echo "guest: insmod $module failed"; done </modules/order

mount -t ext4 /dev/vda /mnt || { echo "guest: mount failed"; poweroff -f; }
content() { seq "$1" "$(($1 + 1500))"; } # about 8 KiB, and different in each file

write() {
  local n=1
  while [ -e "/mnt/file-$n" ]; do n=$((n + 1)); done
  while content "$n" | dd of="/mnt/file-$n" bs=64k conv=fsync 2>/dev/null; do
    echo "guest: durable $n"
    n=$((n + 1))
  done
  echo "guest: write failed"
}

read_all() {
  local n=1
  while [ -e "/mnt/file-$n" ] && content "$n" | cmp -s - "/mnt/file-$n"; do n=$((n + 1)); done
  echo "guest: whole $((n - 1))"
}

echo "guest: ready"
case $(cat /proc/cmdline) in
  *work=write*) write ;;
  *work=read*) read_all ;;
esac
umount /mnt
poweroff -f
