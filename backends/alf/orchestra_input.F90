! Reading terms.dat and trial.dat.  Included in Hamiltonian_Orchestra_smod.F90.
!
! Both are plain text.  Blank lines and lines that begin with # are skipped.
! Numbers are separated by blanks.  A file that is anything else than complete
! and well formed is refused with its line number: a wrong Hamiltonian that runs
! is worse than none.
!
!   orchestra-terms 1          name and version of the format
!   sites N
!   onsite
!   i U_i mu_i                 N lines, i = 1 ... N in order, U_i <= 0
!   hopping
!   h_i1 ... h_iN              N lines; H = sum_ij h_ij c+_i c_j, real, symmetric
!   end
!
!   orchestra-trial 1
!   sites N
!   particles n                per spin, 1 <= n <= N
!   orbitals
!   P_i1 ... P_in              N lines; orthonormal columns, the same for both spins
!   end

   ! Print "orchestra: <file>: [line n:] <message>" and end with ALF's error code for
   ! a bad Hamiltonian (6).
   subroutine refuse(file, line, message)
      character(len=*), intent(in) :: file, message
      integer, intent(in) :: line
      if (line > 0) then
         write(error_unit, '(3A,I0,2A)') 'orchestra: ', file, ': line ', line, ': ', message
      else
         write(error_unit, '(4A)') 'orchestra: ', file, ': ', message
      end if
      call Terminate_on_error(ERROR_HAMILTONIAN, file, line)
   end subroutine refuse

   ! The next line with content.  ALF's processes all read the file themselves:
   ! it is small, and a refusal needs no communication.
   subroutine next_line(f, text)
      type(input_file), intent(inout) :: f
      character(len=:), allocatable, intent(out) :: text
      character(len=4096) :: buffer
      integer :: n, i, ios
      do
         text = ''
         f%line = f%line + 1
         do
            read(f%unit, '(A)', advance='no', size=n, iostat=ios) buffer
            if (n > 0) text = text//buffer(:n)
            if (ios /= 0) exit
         end do
         if (ios == iostat_end .and. len(text) == 0) then
            call refuse(f%name, f%line, 'the file ends too early (no line "end")')
         else if (ios /= iostat_eor .and. ios /= iostat_end) then
            call refuse(f%name, f%line, 'cannot read')
         end if
         do i = 1, len(text)      ! tabs and carriage returns count as blanks
            if (iachar(text(i:i)) == 9 .or. iachar(text(i:i)) == 13) text(i:i) = ' '
         end do
         text = trim(adjustl(text))
         if (len(text) == 0) cycle
         if (text(1:1) /= '#') return
      end do
   end subroutine next_line

   ! Exactly n finite numbers.  Fortran's own list input would also take
   ! repeat counts, commas, slashes and NaN: hence word by word.
   subroutine read_numbers(f, text, x)
      type(input_file), intent(in) :: f
      character(len=*), intent(in) :: text
      real(dp), intent(out) :: x(:)
      real(dp), parameter :: absurd = 1.d8
      character(len=80) :: message
      integer :: n, first, last, ios
      n = 0
      last = 0
      do
         first = verify(text(last+1:), ' ')
         if (first == 0) exit
         first = first + last
         last = scan(text(first:), ' ')
         if (last == 0) then
            last = len(text)
         else
            last = first + last - 2
         end if
         n = n + 1
         if (n > size(x)) cycle
         ios = verify(text(first:last), '0123456789+-.eEdD')
         if (ios == 0) read(text(first:last), *, iostat=ios) x(n)
         if (ios /= 0) call refuse(f%name, f%line, 'not a number: '//text(first:min(last, first+30)))
         ! an infinity is caught here even where -ffast-math has removed isnan
         if (abs(x(n)) > absurd) call refuse(f%name, f%line, 'number too large: '//text(first:min(last, first+30)))
      end do
      if (n /= size(x)) then
         write(message, '(A,I0,A,I0)') 'expected ', size(x), ' numbers, found ', n
         call refuse(f%name, f%line, trim(message))
      end if
   end subroutine read_numbers

   ! A line "keyword" or "keyword number".
   subroutine read_keyword(f, keyword, number)
      type(input_file), intent(inout) :: f
      character(len=*), intent(in) :: keyword
      integer, intent(out), optional :: number
      character(len=:), allocatable :: text
      real(dp) :: x(1)
      call next_line(f, text)
      if (len(text) > len(keyword)) then
         if (text(:len(keyword)+1) /= keyword//' ') call wrong()
      else if (text /= keyword) then
         call wrong()
      end if
      if (present(number)) then
         call read_numbers(f, text(len(keyword)+1:), x)
         number = nint(x(1))
         if (abs(x(1) - number) > 0.d0 .or. number < 0) call refuse(f%name, f%line, keyword//' must be a whole number')
      else if (text /= keyword) then
         call wrong()
      end if
   contains
      subroutine wrong()
         call refuse(f%name, f%line, 'expected "'//keyword//'", found "'//text(:min(len(text), 40))//'"')
      end subroutine wrong
   end subroutine read_keyword

   subroutine open_input(f, name, format_name)
      type(input_file), intent(out) :: f
      character(len=*), intent(in) :: name, format_name
      integer :: ios, version
      f%name = name
      open(newunit=f%unit, file=name, status='old', action='read', iostat=ios)
      if (ios /= 0) call refuse(name, 0, 'file not found or not readable')
      call read_keyword(f, format_name, version)
      if (version /= 1) call refuse(name, f%line, 'unknown format version; this program reads version 1')
   end subroutine open_input

   subroutine read_terms(n, U, mu, h)
      integer, intent(out) :: n
      real(dp), allocatable, intent(out) :: U(:), mu(:), h(:, :)
      type(input_file) :: f
      character(len=:), allocatable :: text
      character(len=80) :: message
      real(dp) :: x(3)
      integer :: i, j
      call open_input(f, 'terms.dat', 'orchestra-terms')
      call read_keyword(f, 'sites', n)
      if (n < 1 .or. n > 10000) call refuse(f%name, f%line, 'the number of sites must lie between 1 and 10000')
      allocate(U(n), mu(n), h(n, n))
      call read_keyword(f, 'onsite')
      do i = 1, n
         call next_line(f, text)
         call read_numbers(f, text, x)
         if (abs(x(1) - i) > 0.d0) call refuse(f%name, f%line, 'sites must be listed in order 1 ... N')
         U(i) = x(2)
         mu(i) = x(3)
         if (U(i) > 0.d0) then
            write(message, '(A,ES11.4,A,I0,A)') 'U = ', U(i), ' at site ', i, ' is repulsive:'
            call refuse(f%name, f%line, trim(message)//' this decoupling is free of a sign problem only for U <= 0')
         end if
      end do
      call read_keyword(f, 'hopping')
      do i = 1, n
         call next_line(f, text)
         call read_numbers(f, text, h(i, :))
      end do
      call read_keyword(f, 'end')
      close(f%unit)
      do j = 1, n
         do i = 1, j - 1
            if (abs(h(i, j) - h(j, i)) > 1.d-12*max(1.d0, abs(h(i, j)))) then
               write(message, '(A,I0,A,I0,A)') 'hopping is not symmetric at (', i, ', ', j, ')'
               call refuse(f%name, 0, trim(message))
            end if
            h(j, i) = h(i, j)
         end do
      end do
   end subroutine read_terms

   subroutine read_trial(n, P)
      integer, intent(in) :: n
      real(dp), allocatable, intent(out) :: P(:, :)
      type(input_file) :: f
      character(len=:), allocatable :: text
      integer :: n_part, n_here, i
      real(dp), allocatable :: overlap(:, :)
      call open_input(f, 'trial.dat', 'orchestra-trial')
      call read_keyword(f, 'sites', n_here)
      if (n_here /= n) call refuse(f%name, f%line, 'not the number of sites of terms.dat')
      call read_keyword(f, 'particles', n_part)
      if (n_part < 1 .or. n_part > n) call refuse(f%name, f%line, 'particles per spin must lie between 1 and sites')
      allocate(P(n, n_part))
      call read_keyword(f, 'orbitals')
      do i = 1, n
         call next_line(f, text)
         call read_numbers(f, text, P(i, :))
      end do
      call read_keyword(f, 'end')
      close(f%unit)
      overlap = matmul(transpose(P), P)
      do i = 1, n_part
         overlap(i, i) = overlap(i, i) - 1.d0
      end do
      if (maxval(abs(overlap)) > 1.d-8) call refuse(f%name, 0, 'the orbitals are not orthonormal')
   end subroutine read_trial
