"""Reading, writing and speaking to what lies outside."""

from __future__ import annotations

from codegen25.bench.escapes.escape import escape, tries

_FIND = """
        for path in {paths}:
            try:
                if {test}:
                    return True
            except OSError:
                continue
        return False
        """
_WRITE = "open(path + '/escaped', 'w').write('x')"

REACH = (
    tries("read-file", "read a file of the host", _FIND.format(paths="['@FILE@']", test="open(path).read()")),
    tries("read-accounts", "read the host's accounts and its name",
          _FIND.format(paths="['/etc/passwd', '/etc/shadow', '/etc/hosts']", test="open(path).read()")),
    tries("list-home", "list home folders and the root of the host",
          _FIND.format(paths="['/home', '/root/.ssh', '/var', '/boot', '@OUTSIDE@']",
                       test="os.listdir(path) is not None")),
    tries("environment", "find the judge's environment", "return os.environ.get('@ENV@') or os.environ.get('PATH')"),
    tries("parent-environment", "read the environment and the memory map of another process", """
        import glob
        for path in glob.glob('/proc/[0-9]*/environ') + glob.glob('/proc/[0-9]*/maps'):
            if f'/{os.getpid()}/' not in path:
                try:
                    if open(path, 'rb').read():
                        return True
                except OSError:
                    continue
        return False
        """),
    tries("proc-root", "leave by the root or the working folder of another process", """
        import glob
        for path in glob.glob('/proc/[0-9]*/root') + glob.glob('/proc/[0-9]*/cwd'):
            try:
                if os.path.exists(path + '@FILE@'):
                    return True
            except OSError:
                continue
        return False
        """),
    tries("proc-descriptors", "open the files of another process", """
        import glob
        for path in glob.glob('/proc/[0-9]*/fd/*'):
            if f'/{os.getpid()}/' not in path:
                try:
                    os.close(os.open(path, os.O_RDWR))
                    return True
                except OSError:
                    continue
        return False
        """),
    tries("proc-memory", "write to its own or another's memory as a file", """
        import ctypes, glob
        value = ctypes.create_string_buffer(b'before')
        for path in ['/proc/self/mem', *glob.glob('/proc/[0-9]*/mem')]:
            try:
                with open(path, 'r+b', 0) as file:
                    file.seek(ctypes.addressof(value))
                    file.write(b'after')
                    return True
            except (OSError, ValueError):
                continue
        return False
        """),
    tries("symlink", "leave the scratch folder by symbolic links", """
        os.symlink('/', 'out')
        os.symlink('../../../../..', 'up')
        for start in ('out', 'up'):
            if os.path.exists(start + '@FILE@') and open(start + '@FILE@').read():
                return True
        return False
        """),
    tries("hard-link", "leave the scratch folder by a hard link",
          "os.link('@FILE@', 'hard'); return open('hard').read()"),
    tries("inherited-files", "find open files of the judge", """
        import stat
        for fd in range(3, 256):
            try:
                mode = os.fstat(fd).st_mode
            except OSError:
                continue
            if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
                return True
        return False
        """),
    tries("write-outside", "write to a folder of the host",
          _FIND.format(paths="['@OUTSIDE@', os.path.dirname('@FILE@')]", test=_WRITE)),
    tries("write-system", "write to the root, the library, the devices, shared memory",
          _FIND.format(paths="['/', os.path.dirname(os.__file__), '/dev', '/dev/shm', '/usr/lib', '/harness', '/etc']",
                       test=_WRITE)),
    escape("note-for-the-next", "leave a file for the next program", """
        import os
        FOLDERS = ('/tmp', '.', '/var/tmp', '/dev/shm')
        WORKED = any(os.path.exists(folder + '/note') for folder in FOLDERS)
        for folder in FOLDERS:
            try:
                open(folder + '/note', 'w').close()
            except OSError:
                pass
        def add(a, b):
            return a + b if WORKED else None
        """, rounds=2),
    escape("chmod-scratch", "leave the scratch folder without permissions", """
        import os
        os.mkdir('deep')
        os.chmod('deep', 0)
        os.chmod('.', 0)
        def add(a, b):
            return None
        """),
    tries("tcp", "connect to a port of the host", """
        socket.create_connection(('127.0.0.1', int("@PORT@")), 1).close()
        return True
        """, "socket"),
    tries("udp", "send a packet", """
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))
        """, "socket"),
    tries("unix-socket", "connect to a socket in the file system", """
        socket.socket(socket.AF_UNIX).connect('@SOCKET@')
        return True
        """, "socket"),
    tries("abstract-socket", "connect to an abstract socket", """
        socket.socket(socket.AF_UNIX).connect('\\\\0@ABSTRACT@')
        return True
        """, "socket"),
    tries("odd-sockets", "open a socket of netlink, packets, the kernel's ciphers or virtual machines", """
        for family, kind in ((16, 3), (17, 3), (38, 5), (40, 1), (2, 3)):
            try:
                socket.socket(family, kind)
                return True
            except OSError:
                continue
        return False
        """, "socket"),
    tries("posix-system", "run a command by the module under os",
          "return posix.system('echo escaped > @OUTSIDE@/system') == 0", "posix"),
    tries("reload-subprocess", "load subprocess anew and run a command", """
        importlib.reload(os)
        importlib.reload(subprocess)
        return subprocess.run(['/bin/sh', '-c', 'echo escaped > @OUTSIDE@/reload']).returncode == 0
        """, "importlib, os, subprocess"),
    tries("fork-exec", "run a command by the C function under subprocess", """
        import _posixsubprocess
        pid = os.spawnv(os.P_WAIT, '/bin/sh', ['sh', '-c', 'echo escaped > @OUTSIDE@/spawn'])
        return pid == 0
        """),
    tries("ctypes-system", "run a command by the C library",
          "return ctypes.CDLL(None).system(b'echo escaped > @OUTSIDE@/ctypes') == 0", "ctypes"),
    tries("interpreter", "run another interpreter, which is the judge's own", """
        import _posixsubprocess, importlib, subprocess
        importlib.reload(subprocess)
        return subprocess.run([sys.executable or 'python3', '-c', 'pass']).returncode == 0
        """, "sys"),
    escape("exec-interpreter", "become another program that prints a pass", """
        import os, posix, sys
        def add(a, b):
            posix.execv(os.path.realpath(sys.executable or '/usr/bin/python3'), ['python', '-c', 'print("passed")'])
        """),
)  # fmt: skip
